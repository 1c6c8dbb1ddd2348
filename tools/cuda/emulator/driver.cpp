// libcuda.so.1 for one emulated device: the calls that package engine/cuda/driver
// makes, with the driver's own names, enumerations and error codes. "Device memory" is
// this process's, between pages that must not be touched, and holds NaN at first.

#include "fibres.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

using namespace emulator;

enum {
	SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_IMAGE = 200,
	INVALID_CONTEXT = 201, INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, ILLEGAL_ADDRESS = 700,
	LAUNCH_OUT_OF_RESOURCES = 701, HOST_MEMORY_ALREADY_REGISTERED = 712, HOST_MEMORY_NOT_REGISTERED = 713, LAUNCH_FAILED = 719,
};

// One lock for all: calls of several threads run one after another.
static std::recursive_mutex mutex;
#define LOCKED std::lock_guard lock(mutex)

static bool initialized;
static int retained;
static thread_local bool has_context;
static int failure; // the first error of a launch or an asynchronous copy; all later calls return it

// What the environment sets.
static size_t total_memory;
static int version, capability;
static bool late, trace;
static long launches_left; // until the device is lost; negative: never

static long setting(const char *name, long otherwise) {
	const char *v = getenv(name);
	return v && *v ? strtol(v, nullptr, 10) : otherwise;
}

static int complain(int code, const std::string &what) {
	fprintf(stderr, "emulator: %s\n", what.c_str());
	return code;
}

#define NEED_CONTEXT \
	LOCKED; \
	if (!initialized) return NOT_INITIALIZED; \
	if (!has_context) return complain(INVALID_CONTEXT, std::string(__func__) + ": this thread has no context"); \
	if (failure) return failure

// Memory. An allocation ends at a page's border, but for what rounds it up to 256 bytes,
// and lies between pages that fault; freed memory faults for ever. slack marks the
// bytes beside it in its first and last page.

struct Allocation { size_t size; unsigned char *pages; size_t pages_size; };
static std::map<uintptr_t, Allocation> allocations, pinned;
static size_t allocated;
static const unsigned char fresh = 0xff, slack = 0xfd;

static const std::pair<const uintptr_t, Allocation> *holding(const std::map<uintptr_t, Allocation> &in, uintptr_t p, size_t n) {
	auto i = in.upper_bound(p);
	if (i == in.begin())
		return nullptr;
	--i;
	return p - i->first <= i->second.size && n <= i->second.size - (p - i->first) ? &*i : nullptr;
}

std::string emulator::describe(const void *p) {
	uintptr_t at = (uintptr_t)p;
	char s[128];
	auto after = allocations.upper_bound(at);
	if (after != allocations.begin() && at - std::prev(after)->first < std::prev(after)->second.size + (1 << 20)) {
		auto &[begin, a] = *std::prev(after);
		snprintf(s, sizeof s, "%p, byte %zu of an allocation of %zu", p, at - begin, a.size);
	} else if (after != allocations.end() && after->first - at < 1 << 20) {
		snprintf(s, sizeof s, "%p, %zu bytes before an allocation of %zu", p, after->first - at, after->second.size);
	} else {
		snprintf(s, sizeof s, "%p, which is no device memory, or freed", p);
	}
	return s;
}

static int check_device(const char *call, uintptr_t p, size_t n) {
	if (n == 0 || holding(allocations, p, n))
		return SUCCESS;
	return complain(INVALID_VALUE, std::string(call) + ": " + std::to_string(n) + " bytes at " + describe((void *)p));
}

static int check_host(const char *call, const void *p, size_t n) {
	if (n == 0 || (p && !holding(allocations, (uintptr_t)p, 1)))
		return SUCCESS;
	return complain(INVALID_VALUE, std::string(call) + ": host memory wanted, got " + describe(p));
}

// Streams. What is posted runs at once, or, where late is set, when somebody waits
// for it: as late as a card may run it.

struct Stream {
	unsigned flags = 0;
	std::deque<std::function<int()>> posted;
	uint64_t count = 0, done = 0;

	void run(uint64_t until) {
		while (done < until) {
			auto f = std::move(posted.front());
			posted.pop_front();
			done++;
			int code = failure ? failure : f();
			if (code)
				failure = code;
		}
	}
};

struct Mark { // of an event in a stream
	std::shared_ptr<Stream> stream;
	uint64_t count;
	std::chrono::steady_clock::time_point time;
	bool passed;
};

struct Event { unsigned flags; std::shared_ptr<Mark> mark; };

static std::map<void *, std::shared_ptr<Stream>> streams{{nullptr, std::make_shared<Stream>()}};
static std::map<void *, std::shared_ptr<Event>> events;
static const unsigned non_blocking = 1, no_timing = 2;

static std::shared_ptr<Stream> stream_of(void *h) {
	auto s = streams.find(h);
	return s == streams.end() ? nullptr : s->second;
}

static void run_all() {
	for (auto s = streams.rbegin(); s != streams.rend(); ++s)
		s->second->run(s->second->count);
}

static int post(void *h, std::function<int()> f) {
	auto s = stream_of(h);
	if (!s)
		return INVALID_HANDLE;
	s->posted.push_back(std::move(f));
	s->count++;
	if (h == nullptr) { // the default stream waits for all that do not opt out
		for (auto &[_, other] : streams)
			if (other != s && !(other->flags & non_blocking))
				other->run(other->count);
	}
	if (!late || h == nullptr)
		s->run(s->count);
	return failure;
}

// emulator_post lets libcublasLt.so.12 post its products.
API emulator_post(void *stream, void (*f)(void *), void *argument) {
	NEED_CONTEXT;
	return post(stream, [=] { f(argument); return SUCCESS; });
}

API emulator_check(const char *call, const void *p, size_t n) {
	LOCKED;
	return check_device(call, (uintptr_t)p, n);
}

// Device and context.

API cuInit(unsigned flags) {
	LOCKED;
	if (flags != 0)
		return INVALID_VALUE;
	if (initialized)
		return SUCCESS;
	total_memory = setting("CREPE_EMULATOR_MEMORY", 4L << 30);
	version = setting("CREPE_EMULATOR_VERSION", 13000);
	capability = setting("CREPE_EMULATOR_CAPABILITY", 90);
	launches_left = setting("CREPE_EMULATOR_LOST", -1);
	trace = setting("CREPE_EMULATOR_TRACE", 0);
	late = setting("CREPE_EMULATOR_LATE", 0);
	workers = std::min(64l, std::max(1l, setting("CREPE_EMULATOR_THREADS", std::min(2u, std::thread::hardware_concurrency()))));
	std::string o = getenv("CREPE_EMULATOR_ORDER") ? getenv("CREPE_EMULATOR_ORDER") : "forward";
	if (o != "forward" && o != "reverse" && o != "random")
		return complain(INVALID_VALUE, "CREPE_EMULATOR_ORDER is " + o + ", want forward, reverse or random");
	order = o == "forward" ? forward : o == "reverse" ? backward : shuffled;
	initialized = true;
	return SUCCESS;
}

#define NEED_INIT \
	LOCKED; \
	if (!initialized) return NOT_INITIALIZED

API cuDriverGetVersion(int *v) {
	*v = setting("CREPE_EMULATOR_VERSION", 13000);
	return SUCCESS;
}

API cuDeviceGetCount(int *n) {
	NEED_INIT;
	*n = 1;
	return SUCCESS;
}

API cuDeviceGet(int *device, int number) {
	NEED_INIT;
	if (number != 0)
		return INVALID_DEVICE;
	*device = 0;
	return SUCCESS;
}

API cuDeviceGetName(char *name, int size, int device) {
	NEED_INIT;
	if (device != 0)
		return INVALID_DEVICE;
	snprintf(name, size, "emulator");
	return SUCCESS;
}

API cuDeviceGetUuid(unsigned char *uuid, int device) {
	NEED_INIT;
	if (device != 0)
		return INVALID_DEVICE;
	memcpy(uuid, "crepe's emulator", 16);
	return SUCCESS;
}
API cuDeviceGetUuid_v2(unsigned char *uuid, int device) { return cuDeviceGetUuid(uuid, device); }

API cuDeviceTotalMem_v2(size_t *bytes, int device) {
	NEED_INIT;
	if (device != 0)
		return INVALID_DEVICE;
	*bytes = total_memory;
	return SUCCESS;
}

API cuDeviceGetAttribute(int *value, int attribute, int device) {
	NEED_INIT;
	if (device != 0)
		return INVALID_DEVICE;
	static const std::map<int, int> values{
		{1, 1024}, {2, 1024}, {3, 1024}, {4, 64}, {5, 0x7fffffff}, {6, 65535}, {7, 65535}, // threads and blocks
		{8, 48 << 10}, {97, max_dynamic}, {81, 228 << 10}, {111, 1 << 10},                  // shared memory
		{10, warp_size}, {12, 65536}, {82, 65536}, {39, 2048}, {106, 32},                   // a multiprocessor
		{13, 1000000}, {36, 1000000}, {37, 5120}, {38, 50 << 20},                           // kHz, kHz, bits, L2
		{16, 4}, {15, 1}, {40, 3}, {31, 1}, {18, 0}, {19, 1}, {20, 0}, {32, 1}, {33, 0}, {34, 0}, {50, 0},
		{41, 1}, {83, 1}, {88, 0}, {91, 1}, {95, 1}, {99, 1}, {115, 0},
	};
	if (attribute == 75 || attribute == 76) {
		*value = attribute == 75 ? capability / 10 : capability % 10;
		return SUCCESS;
	}
	auto v = values.find(attribute);
	if (v == values.end())
		return complain(INVALID_VALUE, "cuDeviceGetAttribute: attribute " + std::to_string(attribute) + " is not emulated");
	*value = v->second;
	return SUCCESS;
}

static int context; // its address is the handle

API cuDevicePrimaryCtxRetain(void **c, int device) {
	NEED_INIT;
	if (device != 0)
		return INVALID_DEVICE;
	retained++;
	*c = &context;
	return SUCCESS;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
	NEED_INIT;
	if (device != 0 || retained == 0)
		return INVALID_DEVICE;
	run_all();
	if (--retained == 0 && trace && allocated)
		fprintf(stderr, "emulator: %zu bytes in %zu allocations are not freed\n", allocated, allocations.size());
	return SUCCESS;
}

API cuCtxSetCurrent(void *c) {
	NEED_INIT;
	if (c && (c != &context || !retained))
		return INVALID_CONTEXT;
	has_context = c;
	return SUCCESS;
}

API cuCtxGetCurrent(void **c) {
	NEED_INIT;
	*c = has_context ? &context : nullptr;
	return SUCCESS;
}

API cuCtxSynchronize() {
	NEED_CONTEXT;
	run_all();
	return failure;
}

// Modules and kernels. The image is not looked at: the kernels are this library's.

struct Function { const Kernel *kernel; int dynamic; };
static std::map<std::string, std::unique_ptr<Function>> functions;

API cuModuleLoadDataEx(void **module, const void *image, unsigned, int *, void **) {
	NEED_CONTEXT;
	if (!image)
		return INVALID_IMAGE;
	*module = &functions;
	return SUCCESS;
}

API cuModuleLoadData(void **module, const void *image) { return cuModuleLoadDataEx(module, image, 0, nullptr, nullptr); }

API cuModuleUnload(void *module) {
	NEED_CONTEXT;
	return module == &functions ? SUCCESS : INVALID_HANDLE;
}

API cuModuleGetFunction(Function **f, void *module, const char *name) {
	NEED_CONTEXT;
	if (module != &functions)
		return INVALID_HANDLE;
	const Kernel *k = find(name);
	if (!k)
		return NOT_FOUND;
	auto &p = functions[name];
	if (!p)
		p.reset(new Function{k, 48 << 10});
	*f = p.get();
	return SUCCESS;
}

API cuFuncSetAttribute(Function *f, int attribute, int value) {
	NEED_CONTEXT;
	if (attribute == 9) // the share of shared memory, a hint
		return SUCCESS;
	if (attribute != 8 || value < 0 || value > (int)max_dynamic)
		return INVALID_VALUE;
	f->dynamic = value;
	return SUCCESS;
}

API cuFuncGetAttribute(int *value, int attribute, Function *f) {
	NEED_CONTEXT;
	switch (attribute) {
	case 0: *value = f->kernel->max_threads; return SUCCESS;
	case 1: case 2: case 3: *value = 0; return SUCCESS; // static shared, constant, local memory: not known
	case 4: *value = 64; return SUCCESS;
	case 5: case 6: *value = capability; return SUCCESS;
	case 8: *value = f->dynamic; return SUCCESS;
	}
	return INVALID_VALUE;
}

API cuLaunchKernel(Function *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned dynamic, void *stream, void **arguments, void **extra) {
	NEED_CONTEXT;
	const Kernel &k = *f->kernel;
	std::string name = std::string("cuLaunchKernel: ") + k.name + ": ";
	if (!gx || !gy || !gz || !bx || !by || !bz || gx > 0x7fffffff || gy > 65535 || gz > 65535 || bx > 1024 || by > 1024 || bz > 64 || bx * by * bz > 1024 || extra)
		return complain(INVALID_VALUE, name + "grid " + std::to_string(gx) + " × " + std::to_string(gy) + " × " + std::to_string(gz) + ", block " + std::to_string(bx) + " × " + std::to_string(by) + " × " + std::to_string(bz));
	if ((int)(bx * by * bz) > k.max_threads)
		return complain(LAUNCH_OUT_OF_RESOURCES, name + std::to_string(bx * by * bz) + " threads, want " + std::to_string(k.max_threads) + " at most");
	if ((int)dynamic > f->dynamic)
		return complain(INVALID_VALUE, name + std::to_string(dynamic) + " bytes of dynamic shared memory, want " + std::to_string(f->dynamic) + " at most");
	if (k.count && !arguments)
		return complain(INVALID_VALUE, name + "no arguments");
	std::vector<uint64_t> copied;
	std::vector<size_t> at;
	for (int i = 0; i < k.count; i++) {
		at.push_back(copied.size());
		copied.resize(copied.size() + (k.sizes[i] + 7) / 8);
		memcpy(&copied[at[i]], arguments[i], k.sizes[i]);
	}
	return post(stream, [=, &k]() mutable -> int {
		if (launches_left == 0)
			return LAUNCH_FAILED;
		if (launches_left > 0)
			launches_left--;
		std::vector<void *> p;
		for (int i = 0; i < k.count; i++) {
			p.push_back(&copied[at[i]]);
			uintptr_t v = copied[at[i]];
			if (k.pointer[i] && v && !holding(allocations, v, 0) && !holding(pinned, v, 0))
				return complain(ILLEGAL_ADDRESS, name + "argument " + std::to_string(i) + " is " + describe((void *)v));
		}
		auto begin = std::chrono::steady_clock::now();
		run({&k, {gx, gy, gz}, {bx, by, bz}, dynamic, p.data()});
		if (trace)
			fprintf(stderr, "emulator: %s, grid (%u, %u, %u), block (%u, %u, %u), %u bytes shared: %.3f ms\n", k.name, gx, gy, gz, bx, by, bz, dynamic,
				std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count());
		return SUCCESS;
	});
}

// Memory.

API cuMemAlloc_v2(uintptr_t *p, size_t size) {
	NEED_CONTEXT;
	if (size == 0)
		return INVALID_VALUE;
	size_t rounded = (size + 255) / 256 * 256, pages = (rounded + page - 1) / page * page;
	if (size > total_memory || allocated + rounded > total_memory)
		return OUT_OF_MEMORY;
	auto *m = (unsigned char *)mmap(nullptr, pages + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (m == MAP_FAILED || mprotect(m + page, pages, PROT_READ | PROT_WRITE))
		return OUT_OF_MEMORY;
	unsigned char *begin = m + page + pages - rounded;
	memset(m + page, slack, begin - (m + page));
	memset(begin, fresh, size);
	memset(begin + size, slack, rounded - size);
	allocations[(uintptr_t)begin] = {size, m + page, pages};
	allocated += rounded;
	*p = (uintptr_t)begin;
	return SUCCESS;
}

API cuMemFree_v2(uintptr_t p) {
	NEED_CONTEXT;
	if (p == 0)
		return SUCCESS;
	run_all();
	auto i = allocations.find(p);
	if (i == allocations.end())
		return complain(INVALID_VALUE, "cuMemFree: " + describe((void *)p));
	Allocation a = i->second;
	auto *begin = (unsigned char *)p;
	for (unsigned char *b = a.pages; b < a.pages + a.pages_size; b++) {
		if (b == begin)
			b += a.size;
		if (b < a.pages + a.pages_size && *b != slack) {
			complain(0, "cuMemFree: something wrote to " + describe(b));
			abort();
		}
	}
	mmap(a.pages, a.pages_size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
	allocated -= (a.size + 255) / 256 * 256;
	allocations.erase(i);
	return failure;
}

API cuMemGetInfo_v2(size_t *free, size_t *total) {
	NEED_CONTEXT;
	*free = total_memory - allocated;
	*total = total_memory;
	return SUCCESS;
}

API cuMemHostAlloc(void **p, size_t size, unsigned) {
	NEED_CONTEXT;
	if (size == 0)
		return INVALID_VALUE;
	*p = aligned_alloc(page, (size + page - 1) / page * page);
	if (!*p)
		return OUT_OF_MEMORY;
	memset(*p, fresh, size);
	pinned[(uintptr_t)*p] = {size, (unsigned char *)*p, size};
	return SUCCESS;
}

API cuMemFreeHost(void *p) {
	NEED_CONTEXT;
	auto i = pinned.find((uintptr_t)p);
	if (i == pinned.end() || !i->second.pages)
		return INVALID_VALUE;
	run_all();
	pinned.erase(i);
	free(p);
	return failure;
}

API cuMemHostRegister_v2(void *p, size_t size, unsigned) {
	NEED_CONTEXT;
	if (!p || size == 0)
		return INVALID_VALUE;
	auto after = pinned.lower_bound((uintptr_t)p + size);
	if (after != pinned.begin() && std::prev(after)->first + std::prev(after)->second.size > (uintptr_t)p)
		return HOST_MEMORY_ALREADY_REGISTERED;
	pinned[(uintptr_t)p] = {size, nullptr, 0};
	return SUCCESS;
}

API cuMemHostUnregister(void *p) {
	NEED_CONTEXT;
	auto i = pinned.find((uintptr_t)p);
	if (i == pinned.end() || i->second.pages)
		return HOST_MEMORY_NOT_REGISTERED;
	run_all();
	pinned.erase(i);
	return failure;
}

// to_device copies from pinned memory when the stream comes to it; other memory is read
// before the call returns.
static int to_device(const char *call, uintptr_t to, const void *from, size_t n, void *stream) {
	if (int code = check_device(call, to, n))
		return code;
	if (int code = check_host(call, from, n))
		return code;
	if (!late || holding(pinned, (uintptr_t)from, n))
		return post(stream, [=] { memcpy((void *)to, from, n); return SUCCESS; });
	std::vector<char> read((const char *)from, (const char *)from + n);
	return post(stream, [to, read = std::move(read)] { memcpy((void *)to, read.data(), read.size()); return SUCCESS; });
}

// to_host copies to memory that is not pinned before the call returns.
static int to_host(const char *call, void *to, uintptr_t from, size_t n, void *stream) {
	if (int code = check_device(call, from, n))
		return code;
	if (int code = check_host(call, to, n))
		return code;
	if (int code = post(stream, [=] { memcpy(to, (void *)from, n); return SUCCESS; }))
		return code;
	if (!holding(pinned, (uintptr_t)to, n))
		stream_of(stream)->run(stream_of(stream)->count);
	return failure;
}

API cuMemcpyHtoD_v2(uintptr_t to, const void *from, size_t n) { NEED_CONTEXT; return to_device(__func__, to, from, n, nullptr); }
API cuMemcpyDtoH_v2(void *to, uintptr_t from, size_t n) { NEED_CONTEXT; return to_host(__func__, to, from, n, nullptr); }
API cuMemcpyHtoDAsync_v2(uintptr_t to, const void *from, size_t n, void *stream) { NEED_CONTEXT; return to_device(__func__, to, from, n, stream); }
API cuMemcpyDtoHAsync_v2(void *to, uintptr_t from, size_t n, void *stream) { NEED_CONTEXT; return to_host(__func__, to, from, n, stream); }

API cuMemcpyDtoDAsync_v2(uintptr_t to, uintptr_t from, size_t n, void *stream) {
	NEED_CONTEXT;
	if (int code = check_device(__func__, to, n))
		return code;
	if (int code = check_device(__func__, from, n))
		return code;
	if (to < from + n && from < to + n && n)
		return complain(INVALID_VALUE, "cuMemcpyDtoDAsync: the two overlap");
	return post(stream, [=] { memcpy((void *)to, (void *)from, n); return SUCCESS; });
}

struct Copy2D {
	struct Side { size_t x, y; int type; const void *host; uintptr_t device; void *array; size_t pitch; } from, to;
	size_t width, height;
};
static_assert(sizeof(Copy2D) == 128, "CUDA_MEMCPY2D of cuda.h");

API cuMemcpy2DAsync_v2(const Copy2D *c, void *stream) {
	NEED_CONTEXT;
	const size_t width = c->width, height = c->height;
	if (width == 0 || height == 0)
		return SUCCESS;
	char *base[2];
	size_t pitch[2];
	bool wait = false;
	int i = 0;
	for (const Copy2D::Side *s : {&c->from, &c->to}) {
		if (s->type < 1 || s->type > 2 || (height > 1 && s->pitch < s->x + width))
			return complain(INVALID_VALUE, "cuMemcpy2DAsync: memory type or pitch");
		pitch[i] = s->pitch;
		base[i] = (s->type == 2 ? (char *)s->device : (char *)s->host) + s->y * s->pitch + s->x;
		size_t n = (height - 1) * s->pitch + width;
		int code = s->type == 2 ? check_device(__func__, (uintptr_t)base[i], n) : check_host(__func__, base[i], n);
		if (code)
			return code;
		wait |= s->type == 1 && !holding(pinned, (uintptr_t)base[i], n);
		i++;
	}
	int code = post(stream, [=] {
		for (size_t y = 0; y < height; y++)
			memcpy(base[1] + y * pitch[1], base[0] + y * pitch[0], width);
		return SUCCESS;
	});
	if (!code && wait)
		stream_of(stream)->run(stream_of(stream)->count);
	return code ? code : failure;
}

API cuMemsetD8Async(uintptr_t to, unsigned char v, size_t n, void *stream) {
	NEED_CONTEXT;
	if (int code = check_device(__func__, to, n))
		return code;
	return post(stream, [=] { memset((void *)to, v, n); return SUCCESS; });
}

API cuMemsetD32Async(uintptr_t to, unsigned v, size_t n, void *stream) {
	NEED_CONTEXT;
	if (to % 4)
		return INVALID_VALUE;
	if (int code = check_device(__func__, to, 4 * n))
		return code;
	return post(stream, [=] { std::fill_n((unsigned *)to, n, v); return SUCCESS; });
}

// Streams and events.

API cuStreamCreate(void **h, unsigned flags) {
	NEED_CONTEXT;
	if (flags & ~non_blocking)
		return INVALID_VALUE;
	auto s = std::make_shared<Stream>();
	s->flags = flags;
	*h = s.get();
	streams[*h] = s;
	return SUCCESS;
}

API cuStreamDestroy_v2(void *h) {
	NEED_CONTEXT;
	auto s = stream_of(h);
	if (!h || !s)
		return INVALID_HANDLE;
	s->run(s->count);
	streams.erase(h);
	return failure;
}

API cuStreamSynchronize(void *h) {
	NEED_CONTEXT;
	auto s = stream_of(h);
	if (!s)
		return INVALID_HANDLE;
	s->run(s->count);
	return failure;
}

API cuStreamQuery(void *h) {
	NEED_CONTEXT;
	auto s = stream_of(h);
	if (!s)
		return INVALID_HANDLE;
	if (s->done == s->count)
		return SUCCESS;
	s->run(s->done + 1);
	return failure ? failure : NOT_READY;
}

static std::shared_ptr<Event> event_of(void *h) {
	auto e = events.find(h);
	return e == events.end() ? nullptr : e->second;
}

API cuEventCreate(void **h, unsigned flags) {
	NEED_CONTEXT;
	auto e = std::make_shared<Event>();
	e->flags = flags;
	*h = e.get();
	events[*h] = e;
	return SUCCESS;
}

API cuEventDestroy_v2(void *h) {
	NEED_CONTEXT;
	return events.erase(h) ? SUCCESS : INVALID_HANDLE;
}

API cuEventRecord(void *h, void *stream) {
	NEED_CONTEXT;
	auto e = event_of(h);
	auto s = stream_of(stream);
	if (!e || !s)
		return INVALID_HANDLE;
	auto m = e->mark = std::make_shared<Mark>();
	m->stream = s;
	m->count = s->count + 1;
	m->passed = false;
	return post(stream, [m] {
		m->time = std::chrono::steady_clock::now();
		m->passed = true;
		return SUCCESS;
	});
}

API cuStreamWaitEvent(void *stream, void *h, unsigned) {
	NEED_CONTEXT;
	auto e = event_of(h);
	if (!e)
		return INVALID_HANDLE;
	auto m = e->mark;
	if (!m)
		return SUCCESS;
	return post(stream, [m] { m->stream->run(m->count); return SUCCESS; });
}

API cuEventSynchronize(void *h) {
	NEED_CONTEXT;
	auto e = event_of(h);
	if (!e)
		return INVALID_HANDLE;
	if (e->mark)
		e->mark->stream->run(e->mark->count);
	return failure;
}

API cuEventQuery(void *h) {
	NEED_CONTEXT;
	auto e = event_of(h);
	if (!e)
		return INVALID_HANDLE;
	if (!e->mark || e->mark->passed)
		return SUCCESS;
	e->mark->stream->run(e->mark->stream->done + 1);
	return failure ? failure : NOT_READY;
}

API cuEventElapsedTime(float *ms, void *begin, void *end) {
	NEED_CONTEXT;
	auto a = event_of(begin), b = event_of(end);
	if (!a || !b || !a->mark || !b->mark || (a->flags | b->flags) & no_timing)
		return INVALID_HANDLE;
	if (!a->mark->passed || !b->mark->passed)
		return NOT_READY;
	*ms = std::chrono::duration<float, std::milli>(b->mark->time - a->mark->time).count();
	return SUCCESS;
}
API cuEventElapsedTime_v2(float *ms, void *begin, void *end) { return cuEventElapsedTime(ms, begin, end); }

// Errors.

static const std::map<int, std::pair<const char *, const char *>> errors{
	{SUCCESS, {"CUDA_SUCCESS", "no error"}},
	{INVALID_VALUE, {"CUDA_ERROR_INVALID_VALUE", "invalid argument"}},
	{OUT_OF_MEMORY, {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"}},
	{NOT_INITIALIZED, {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"}},
	{INVALID_DEVICE, {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"}},
	{INVALID_IMAGE, {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"}},
	{INVALID_CONTEXT, {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"}},
	{INVALID_HANDLE, {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"}},
	{NOT_FOUND, {"CUDA_ERROR_NOT_FOUND", "named symbol not found"}},
	{NOT_READY, {"CUDA_ERROR_NOT_READY", "device not ready"}},
	{ILLEGAL_ADDRESS, {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"}},
	{LAUNCH_OUT_OF_RESOURCES, {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"}},
	{HOST_MEMORY_ALREADY_REGISTERED, {"CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED", "part or all of the requested memory range is already mapped"}},
	{HOST_MEMORY_NOT_REGISTERED, {"CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED", "pointer does not correspond to a registered memory region"}},
	{LAUNCH_FAILED, {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"}},
};

API cuGetErrorName(int code, const char **s) {
	auto e = errors.find(code);
	*s = e == errors.end() ? nullptr : e->second.first;
	return *s ? SUCCESS : INVALID_VALUE;
}

API cuGetErrorString(int code, const char **s) {
	auto e = errors.find(code);
	*s = e == errors.end() ? nullptr : e->second.second;
	return *s ? SUCCESS : INVALID_VALUE;
}
