// Blocks of threads as fibres. A worker, a thread of the operating system, runs one
// block at a time; a block runs one warp at a time until all its lanes wait for the
// block or have ended. A lane runs until it waits; then the next lane of the warp runs
// on its own stack. The last lane to arrive at an operation of the warp does it for all.

#include "fibres.h"

#include <atomic>
#include <condition_variable>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <dlfcn.h>
#include <link.h>
#include <map>
#include <mutex>
#include <sys/mman.h>
#include <thread>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

namespace emulator {

Order order = forward;
int workers = 2;

struct Warp {
	uint32_t ready, waiting, ended; // lanes that may run, wait for the block, are done
	int arrived;                    // lanes that wait in an operation of the warp
	int first, lanes;               // index in the block of lane 0
	Thread *lane[warp_size];        // null: not begun
};

struct Worker;

struct Block {
	const Launch *launch;
	Worker *worker;
	uint3 index;
	int threads, warps;
	void *scheduler; // its stack pointer while a lane runs
	Warp warp[1024 / warp_size];
};

struct Worker {
	unsigned char *stacks, *next, *end; // of fibres
	std::vector<Thread *> idle;
	unsigned char *dynamic_end;
	unsigned char *shared; // static shared memory: this library's thread-local variables
	size_t shared_size;
	uint64_t random;
	Block block;

	Worker();
	void run(const Launch &, uint64_t index);
	Thread *stack();
	int pick(uint32_t set);
};

// leave saves the registers that a call keeps on the stack and its pointer in *from,
// and goes on where to left.
extern "C" void emulator_leave(void **from, void *to);
extern "C" void emulator_begin();
asm(R"(
	.text
	.globl emulator_leave
	.hidden emulator_leave
emulator_leave:
	push %rbp
	push %rbx
	push %r12
	push %r13
	push %r14
	push %r15
	mov %rsp, (%rdi)
	mov %rsi, %rsp
	pop %r15
	pop %r14
	pop %r13
	pop %r12
	pop %rbx
	pop %rbp
	ret
	.globl emulator_begin
	.hidden emulator_begin
emulator_begin:
	call emulator_live
	ud2
)");

// Messages.

static std::string place(const Block &b, int thread) {
	const dim3 &d = b.launch->block;
	char s[256];
	snprintf(s, sizeof s, "kernel %s, block (%u, %u, %u), thread (%u, %u, %u)", b.launch->kernel->name, b.index.x, b.index.y, b.index.z,
		thread % d.x, thread / d.x % d.y, thread / d.x / d.y);
	return s;
}

[[noreturn]] static void die(const std::string &message) {
	fprintf(stderr, "emulator: %s\n", message.c_str());
	fflush(stderr);
	signal(SIGABRT, SIG_DFL);
	abort();
}

static std::string at(Site s) { return std::string(s.file) + ":" + std::to_string(s.line); }

void fail(Site site, const char *format, ...) {
	char s[512];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(s, sizeof s, format, arguments);
	va_end(arguments);
	Thread &t = self();
	die(at(site) + ": " + place(*t.in, t.index) + ": " + s);
}

// stuck ends the program when threads wait for others that will not come.
[[noreturn]] static void stuck(const Block &b) {
	std::map<std::string, std::vector<int>> where;
	for (int i = 0; i < b.threads; i++) {
		const Warp &w = b.warp[i / warp_size];
		uint32_t lane = 1u << i % warp_size;
		const Thread *t = w.lane[i % warp_size];
		where[!t ? "have not begun" : w.ended & lane ? "have ended" : w.waiting & lane ? "wait for the block at " + at(t->site) : "wait for their warp at " + at(t->site)].push_back(i);
	}
	std::string s = place(b, 0) + " and others: not all threads come to the same place:";
	for (auto &[what, threads] : where)
		s += "\n  " + std::to_string(threads.size()) + " threads, the first " + std::to_string(threads[0]) + ", " + what;
	die(s);
}

// Fibres.

int Worker::pick(uint32_t set) {
	if (order == forward)
		return __builtin_ctz(set);
	if (order == backward)
		return 31 - __builtin_clz(set);
	random = random * 6364136223846793005u + 1442695040888963407u;
	int r = random >> 59;
	return (__builtin_ctz(set >> r | set << (31 - r) << 1) + r) % 32;
}

static void become(Thread &t, Block &b, Warp &w, int lane) {
	const Launch &l = *b.launch;
	unsigned i = w.first + lane;
	t.thread = {i % l.block.x, i / l.block.x % l.block.y, i / l.block.x / l.block.y};
	t.block = b.index;
	t.block_size = l.block;
	t.grid = l.grid;
	t.dynamic = b.worker->dynamic_end - (l.dynamic + 15) / 16 * 16;
	t.warp = &w;
	t.in = &b;
	t.index = i;
	t.lane = lane;
	t.group = t.copies = 0;
	w.lane[lane] = &t;
}

Thread *Worker::stack() {
	if (!idle.empty()) {
		Thread *t = idle.back();
		idle.pop_back();
		return t;
	}
	unsigned char *p = next;
	next += stack_size;
	if (next > end || mprotect(p + page, stack_size - page, PROT_READ | PROT_WRITE))
		die("no memory for a fibre's stack");
	return &thread_at((uintptr_t)p);
}

// enter runs a lane that is ready; *from is where the caller goes on.
static void enter(void **from, Block &b, Warp &w) {
	int lane = b.worker->pick(w.ready);
	w.ready &= ~(1u << lane);
	Thread *t = w.lane[lane];
	if (!t) {
		t = b.worker->stack();
		become(*t, b, w, lane);
		void **sp = (void **)t - 2; // aligned to 16 bytes when emulator_begin calls
		*--sp = (void *)emulator_begin;
		for (int i = 0; i < 6; i++)
			*--sp = nullptr;
		t->sp = sp;
	}
	emulator_leave(from, t->sp);
}

static void wait(Thread &t) {
	if (t.warp->ready)
		enter(&t.sp, *t.in, *t.warp);
	else
		emulator_leave(&t.sp, t.in->scheduler);
}

static void copy(Thread &t, int before) {
	int left = 0;
	for (int i = 0; i < t.copies; i++) {
		const Copy &c = t.copy[i];
		if (c.group >= before)
			t.copy[left++] = c;
		else if (c.valid)
			memcpy(c.to, c.from, 16);
		else
			memset(c.to, 0, 16);
	}
	t.copies = left;
}

// emulator_live is the life of a fibre: it runs lanes of one warp until none is left
// that has not begun.
extern "C" void emulator_live() {
	Thread &t = self();
	Block &b = *t.in;
	Warp &w = *t.warp;
	for (;;) {
		b.launch->kernel->run(b.launch->arguments);
		copy(t, t.group + 1);
		w.ended |= 1u << t.lane;
		void *next = b.scheduler;
		if (w.ready) {
			int lane = b.worker->pick(w.ready);
			w.ready &= ~(1u << lane);
			if (!w.lane[lane]) {
				become(t, b, w, lane);
				continue;
			}
			next = w.lane[lane]->sp;
		}
		b.worker->idle.push_back(&t);
		emulator_leave(&t.sp, next);
	}
}

void barrier(Site site) {
	Thread &t = self();
	t.site = site;
	t.warp->waiting |= 1u << t.lane;
	wait(t);
}

// operate does the operation of a warp whose lanes have all arrived, in the last.
static __attribute__((noinline)) void operate(Thread &t, Warp &w) {
	void *all[warp_size];
	for (int i = 0; i < warp_size; i++) {
		Thread &other = *w.lane[i];
		if (other.operation != t.operation || other.site.line != t.site.line)
			fail(t.site, "lane %d of its warp is at %s, in another operation", i, at(other.site).c_str());
		all[i] = other.arguments;
	}
	t.operation(all);
	w.arrived = 0;
	w.ready = ~(1u << t.lane);
}

void collective(void (*operation)(void *const *), void *arguments, Site site) {
	Thread &t = self();
	Warp &w = *t.warp;
	t.operation = operation;
	t.arguments = arguments;
	t.site = site;
	if (w.lanes != warp_size)
		fail(site, "an operation of the warp in a warp of %d lanes", w.lanes);
	if (++w.arrived < warp_size)
		wait(t);
	else
		operate(t, w);
}

// Blocks.

void Worker::run(const Launch &l, uint64_t i) {
	Block &b = block;
	b.launch = &l;
	b.worker = this;
	b.index = {(unsigned)(i % l.grid.x), (unsigned)(i / l.grid.x % l.grid.y), (unsigned)(i / l.grid.x / l.grid.y)};
	b.threads = l.block.x * l.block.y * l.block.z;
	b.warps = (b.threads + warp_size - 1) / warp_size;
	random = i;
	// All bits set: NaN in every format of floats.
	memset(shared, 0xff, shared_size);
	memset(dynamic_end - (l.dynamic + 15) / 16 * 16, 0xff, (l.dynamic + 15) / 16 * 16);
	for (int i = 0; i < b.warps; i++) {
		Warp &w = b.warp[i];
		w.first = i * warp_size;
		w.lanes = std::min(warp_size, b.threads - w.first);
		w.ready = 0xffffffffu >> (warp_size - w.lanes);
		w.waiting = w.ended = w.arrived = 0;
		memset(w.lane, 0, sizeof w.lane);
	}
	for (;;) {
		int ended = 0, waiting = 0;
		int turn = order == shuffled ? pick(~0u) : 0;
		for (int i = 0; i < b.warps; i++) {
			Warp &w = b.warp[order == forward ? i : order == backward ? b.warps - 1 - i : (i + turn) % b.warps];
			if (w.ready)
				enter(&b.scheduler, b, w);
			if (w.arrived)
				stuck(b);
			ended += __builtin_popcount(w.ended);
			waiting += __builtin_popcount(w.waiting);
		}
		if (ended == b.threads)
			return;
		if (waiting != b.threads)
			stuck(b);
		int line = b.warp[0].lane[0]->site.line;
		for (int i = 0; i < b.warps; i++) {
			Warp &w = b.warp[i];
			for (int k = 0; k < w.lanes; k++)
				if (w.lane[k]->site.line != line)
					stuck(b);
			w.ready = w.waiting;
			w.waiting = 0;
		}
	}
}

// Workers.

static Worker *all_workers[64];

bool is_shared(const void *p, size_t n) {
	const Worker &w = *self().in->worker;
	auto in = [&](const unsigned char *begin, const unsigned char *end) { return p >= begin && (const unsigned char *)p + n <= end; };
	return in(self().dynamic, w.dynamic_end) || in(w.shared, w.shared + w.shared_size);
}

// on_fault says which thread of a kernel read or wrote where it must not. Faults of
// others are left to the handler that was there before.
static struct sigaction before[NSIG];

static void on_fault(int signal, siginfo_t *info, void *context) {
	auto &registers = ((ucontext_t *)context)->uc_mcontext.gregs;
	unsigned char *sp = (unsigned char *)registers[REG_RSP];
	void *pc = (void *)registers[REG_RIP];
	for (Worker *w : all_workers) {
		if (!w || sp < w->stacks || sp >= w->end)
			continue;
		Thread &t = thread_at((uintptr_t)sp);
		unsigned char *address = (unsigned char *)info->si_addr, *stack = sp - (uintptr_t)sp % stack_size;
		std::string what;
		if (signal == SIGILL || signal == SIGTRAP)
			what = "an array's bounds or an address's alignment are not kept";
		else if (signal == SIGFPE)
			what = "an integer is divided by 0";
		else if (address >= stack && address < stack + stack_size)
			what = "its local variables need more than " + std::to_string(stack_size >> 10) + " KiB";
		else if (address >= w->dynamic_end && address < w->dynamic_end + page)
			what = "access behind the dynamic shared memory";
		else
			what = "access to " + describe(address);
		fprintf(stderr, "emulator: %s: %s, at\n", place(*t.in, t.index).c_str(), what.c_str());
		Dl_info library;
		if (dladdr(pc, &library)) {
			char command[1024];
			snprintf(command, sizeof command, "addr2line -s -i -p -e '%s' %#lx 1>&2", library.dli_fname, (unsigned long)((char *)pc - (char *)library.dli_fbase));
			if (system(command) != 0)
				fprintf(stderr, "  %s\n", command);
		}
		die("stopped");
	}
	sigaction(signal, &before[signal], nullptr);
}

struct Tls { unsigned long module, offset; };
extern "C" void *__tls_get_addr(Tls *);

Worker::Worker() {
	const size_t stacks_size = (1024 + 1) * stack_size;
	auto map = [](size_t n, int protection) {
		void *p = mmap(nullptr, n, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (p == MAP_FAILED)
			die("no memory for a worker");
		return (unsigned char *)p;
	};
	stacks = map(stacks_size, PROT_NONE);
	end = stacks + stacks_size;
	next = (unsigned char *)(((uintptr_t)stacks + stack_size - 1) & ~(uintptr_t)(stack_size - 1));
	size_t n = (max_dynamic + page - 1) / page * page;
	unsigned char *dynamic = map(n + page, PROT_READ | PROT_WRITE);
	dynamic_end = dynamic + n;
	mprotect(dynamic_end, page, PROT_NONE);

	shared = nullptr;
	shared_size = 0;
	dl_iterate_phdr([](dl_phdr_info *i, size_t, void *data) {
		Worker &w = *(Worker *)data;
		Dl_info own;
		dladdr((void *)emulator_live, &own);
		if (i->dlpi_addr != (uintptr_t)own.dli_fbase)
			return 0;
		for (int k = 0; k < i->dlpi_phnum; k++)
			if (i->dlpi_phdr[k].p_type == PT_TLS) {
				w.shared_size = i->dlpi_phdr[k].p_memsz;
				Tls first{i->dlpi_tls_modid, 0};
				w.shared = (unsigned char *)__tls_get_addr(&first);
			}
		return 1;
	}, this);

	stack_t alternate = {};
	alternate.ss_size = 256 << 10;
	alternate.ss_sp = malloc(alternate.ss_size);
	sigaltstack(&alternate, nullptr);
}

// Never destroyed: the workers wait for them until the process ends.
static auto &mutex = *new std::mutex;
static auto &begun = *new std::condition_variable, &done = *new std::condition_variable;
static const Launch *current;
static uint64_t blocks, stride, launches;
static std::atomic<uint64_t> taken;
static int busy;

static void work(int number) {
	Worker *w = all_workers[number] = new Worker;
	uint64_t seen = 0;
	std::unique_lock lock(mutex);
	for (;;) {
		begun.wait(lock, [&] { return launches != seen; });
		seen = launches;
		lock.unlock();
		for (uint64_t i; (i = taken++) < blocks;)
			w->run(*current, order == forward ? i : order == backward ? blocks - 1 - i : (unsigned __int128)i * stride % blocks);
		lock.lock();
		if (--busy == 0)
			done.notify_one();
	}
}

static void start() {
	struct sigaction action = {};
	action.sa_sigaction = on_fault;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK;
	sigset_t all, old;
	sigfillset(&all);
	for (int s : {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE}) {
		sigaction(s, &action, &before[s]);
		sigdelset(&all, s);
	}
	pthread_sigmask(SIG_SETMASK, &all, &old);
	for (int i = 0; i < workers; i++)
		std::thread(work, i).detach();
	pthread_sigmask(SIG_SETMASK, &old, nullptr);
}

void run(const Launch &l) {
	static std::once_flag once;
	std::call_once(once, start);
	std::unique_lock lock(mutex);
	current = &l;
	blocks = (uint64_t)l.grid.x * l.grid.y * l.grid.z;
	stride = blocks * 0.618 + 1;
	auto common = [](uint64_t a, uint64_t b) {
		while (b)
			a = std::exchange(b, a % b);
		return a;
	};
	while (common(stride, blocks) != 1)
		stride++;
	taken = 0;
	busy = workers;
	launches++;
	begun.notify_all();
	done.wait(lock, [] { return busy == 0; });
}

// Kernels.

static std::map<std::string, Kernel> &kernels() {
	static auto *all = new std::map<std::string, Kernel>;
	return *all;
}

void add(const Kernel &k) { kernels()[k.name] = k; }

const Kernel *find(const char *name) {
	auto k = kernels().find(name);
	return k == kernels().end() ? nullptr : &k->second;
}

// What needs PTX.

void mma(void *const *lane) {
	typedef float row __attribute__((vector_size(32)));
	float a[16][16];
	row b[16], d[16];
	for (int l = 0; l < warp_size; l++) {
		const Mma &m = *(Mma *)lane[l];
		int group = l / 4, place = l % 4;
		for (int i = 0; i < 4; i++) {
			float *p = &a[group + 8 * (i % 2)][2 * place + 8 * (i / 2)];
			p[0] = float_of(m.a[i] << 16);
			p[1] = float_of(m.a[i] & 0xffff0000u);
			d[group + 8 * (i / 2)][2 * place + i % 2] = m.d[i];
		}
		for (int i = 0; i < 2; i++) {
			b[2 * place + 8 * i][group] = float_of(m.b[i] << 16);
			b[2 * place + 8 * i + 1][group] = float_of(m.b[i] & 0xffff0000u);
		}
	}
	for (int i = 0; i < 16; i++)
		for (int k = 0; k < 16; k++)
			d[i] += a[i][k] * b[k];
	for (int l = 0; l < warp_size; l++)
		for (int i = 0; i < 4; i++)
			((Mma *)lane[l])->d[i] = d[l / 4 + 8 * (i / 2)][2 * (l % 4) + i % 2];
}

void copy_async(void *to, const void *from, bool valid, Site site) {
	Thread &t = self();
	if ((uintptr_t)to % 16 != 0 || (uintptr_t)from % 16 != 0 || !is_shared(to, 16))
		fail(site, "copy from %p to %p: want 16 bytes of shared memory, both aligned to 16", from, to);
	if (t.copies == max_copies)
		fail(site, "more than %d copies under way", max_copies);
	memset(to, 0xff, 16);
	t.copy[t.copies++] = {to, from, valid, t.group};
}

void copies_commit() { self().group++; }
void copies_wait(int groups) { copy(self(), self().group - groups); }

} // namespace emulator
