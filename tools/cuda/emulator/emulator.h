// CUDA C++ as far as the kernels use it, for a C++ compiler: build.py includes this
// file before each .cu. A thread of a block is a fibre (fibres.cpp) that runs until it
// waits for others, at a barrier or in an operation of its warp.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict
// A worker runs one block at a time, so a block's shared variables are its worker's.
#define __shared__ static thread_local
#define __activemask() 0xffffffffu

struct uint3 { unsigned x, y, z; };
typedef uint3 dim3;

namespace emulator {

const int warp_size = 32;
const size_t stack_size = 64 << 10; // of a fibre, aligned to its size
const int max_copies = 128;         // asynchronous copies under way in a thread

struct Warp;
struct Block;

// What a thread waits for, and where in the source.
struct Site {
	const char *file;
	int line;
	static constexpr Site here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }
};

struct Copy { void *to; const void *from; bool valid; int group; };

// Thread lies at the upper end of its fibre's stack, so that self finds it from the
// stack pointer; what is used most comes first, next to the stack's first frames.
struct Thread {
	void *sp; // while it does not run
	uint3 thread, block, block_size, grid;
	unsigned char *dynamic;
	Warp *warp;
	Block *in;
	int index, lane;
	// The operation of the warp that it waits in, or null.
	void (*operation)(void *const *);
	void *arguments;
	Site site;
	int group, copies; // asynchronous copies: the open group, how many are under way
	Copy copy[max_copies];
};

// thread_at is the thread on whose stack p is. Threads lie at different offsets in a
// page: else they would all share a few lines of the first cache.
inline Thread &thread_at(uintptr_t p) {
	const size_t room = (sizeof(Thread) + 4095) / 4096 * 4096 + 4096;
	uintptr_t number = p / stack_size;
	return *(Thread *)((number + 1) * stack_size - room + number * 7 % 64 * 64);
}

inline Thread &self() {
	uintptr_t sp;
	asm("mov %%rsp, %0" : "=r"(sp));
	return thread_at(sp);
}

// barrier returns when all threads of the block wait at this site.
void barrier(Site);

// collective returns when all lanes of the warp wait in the same operation and the
// last of them has run it: operation gets the arguments of every lane.
void collective(void (*operation)(void *const *), void *arguments, Site);

[[noreturn]] void fail(Site, const char *format, ...) __attribute__((format(printf, 2, 3)));

// is_shared tells whether n bytes at p are shared memory of the running block.
bool is_shared(const void *p, size_t n);

struct Kernel {
	const char *name;
	void (*run)(void *const *arguments);
	int max_threads;
	int count;
	size_t sizes[64]; // of the arguments, in bytes
	bool pointer[64];
};

void add(const Kernel &);

template <auto kernel> struct Entry;
template <class... A, void (*kernel)(A...)> struct Entry<kernel> {
	template <size_t... i> static void call(void *const *p, std::index_sequence<i...>) { kernel(*(A *)p[i]...); }
	static void run(void *const *p) { call(p, std::index_sequence_for<A...>{}); }
	Entry(const char *name, int max_threads = 1024) {
		add({name, run, max_threads, sizeof...(A), {sizeof(A)...}, {std::is_pointer_v<A>...}});
	}
};

} // namespace emulator

#define threadIdx (emulator::self().thread)
#define blockIdx (emulator::self().block)
#define blockDim (emulator::self().block_size)
#define gridDim (emulator::self().grid)
#define dynamic_shared (emulator::self().dynamic)
const int warpSize = emulator::warp_size;

// Barriers and fences.

inline void __syncthreads(emulator::Site at = emulator::Site::here()) { emulator::barrier(at); }
inline void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }
inline void __threadfence_block() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

// Operations of a warp. An argument is a lane's struct, which gets its result too.

namespace emulator {

template <class T> struct Shuffle { T value; int from; T result; };

template <class T> void shuffle(void *const *lane) {
	for (int i = 0; i < warp_size; i++) {
		auto *s = (Shuffle<T> *)lane[i];
		s->result = ((Shuffle<T> *)lane[s->from])->value;
	}
}

template <class T> T exchange(unsigned mask, T value, int from, Site at) {
	if (mask != 0xffffffffu)
		fail(at, "mask %08x: only whole warps exchange values", mask);
	Shuffle<T> s{value, from, {}};
	collective(shuffle<T>, &s, at);
	return s.result;
}

struct Vote { bool value; unsigned result; };

inline void vote(void *const *lane) {
	unsigned bits = 0;
	for (int i = 0; i < warp_size; i++)
		bits |= (unsigned)((Vote *)lane[i])->value << i;
	for (int i = 0; i < warp_size; i++)
		((Vote *)lane[i])->result = bits;
}

inline void nothing(void *const *) {}

} // namespace emulator

inline void __syncwarp(unsigned mask = 0xffffffffu, emulator::Site at = emulator::Site::here()) {
	if (mask != 0xffffffffu)
		emulator::fail(at, "mask %08x: only whole warps wait", mask);
	emulator::collective(emulator::nothing, nullptr, at);
}

inline unsigned __ballot_sync(unsigned mask, int value, emulator::Site at = emulator::Site::here()) {
	if (mask != 0xffffffffu)
		emulator::fail(at, "mask %08x: only whole warps vote", mask);
	emulator::Vote v{value != 0, 0};
	emulator::collective(emulator::vote, &v, at);
	return v.result;
}

inline int __any_sync(unsigned mask, int value, emulator::Site at = emulator::Site::here()) { return __ballot_sync(mask, value, at) != 0; }
inline int __all_sync(unsigned mask, int value, emulator::Site at = emulator::Site::here()) { return __ballot_sync(mask, value, at) == 0xffffffffu; }

// Lanes exchange values within groups of width; who names a lane outside gets its own.
template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32, emulator::Site at = emulator::Site::here()) {
	int lane = emulator::self().lane;
	return emulator::exchange(mask, v, (lane & ~(width - 1)) | (from & (width - 1)), at);
}

template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, emulator::Site at = emulator::Site::here()) {
	int lane = emulator::self().lane, first = lane & ~(width - 1);
	return emulator::exchange(mask, v, lane - (int)by < first ? lane : lane - (int)by, at);
}

template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, emulator::Site at = emulator::Site::here()) {
	int lane = emulator::self().lane, last = lane | (width - 1);
	return emulator::exchange(mask, v, lane + (int)by > last ? lane : lane + (int)by, at);
}

template <class T> T __shfl_xor_sync(unsigned mask, T v, int by, int width = 32, emulator::Site at = emulator::Site::here()) {
	int lane = emulator::self().lane, last = lane | (width - 1);
	return emulator::exchange(mask, v, (lane ^ by) > last ? lane : lane ^ by, at);
}

// What device.cuh names by PTX.

namespace emulator {

inline float float_of(uint32_t bits) { float f; memcpy(&f, &bits, 4); return f; }
inline uint32_t bits_of(float f) { uint32_t bits; memcpy(&bits, &f, 4); return bits; }

// Rounded to nearest, ties to even; a NaN is 0x7fff, as the card's is.
inline uint16_t round_bf16(float f) {
	uint32_t b = bits_of(f);
	if (f != f)
		return 0x7fff;
	return (b + 0x7fff + (b >> 16 & 1)) >> 16;
}

// Fragments of mma.m16n8k16, PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating
// point type": lane l has group = l/4 and place = l%4. Its register i of a holds row
// group + 8·(i%2), columns 2·place + 8·(i/2) and the next; register i of b holds column
// group, rows 2·place + 8·i and the next; element i of d is row group + 8·(i/2), column
// 2·place + i%2. The lower half of a register is the element of lower index.
struct Mma { float *d; const unsigned *a, *b; };

void mma(void *const *lane);

// Lane l gives the address of row l%8 of matrix l/8; register m of lane l holds of
// matrix m the elements 2·(l%4) and the next of row l/4, transposed of column l/4.
struct Matrices { unsigned *r; const uint16_t *row; };

template <bool transposed> void load(void *const *lane) {
	auto at = [&](int m, int row, int col) -> unsigned { return ((Matrices *)lane[8 * m + row])->row[col]; };
	for (int l = 0; l < warp_size; l++)
		for (int m = 0; m < 4; m++) {
			int i = l / 4, j = 2 * (l % 4);
			((Matrices *)lane[l])->r[m] = transposed ? at(m, j, i) | at(m, j + 1, i) << 16 : at(m, i, j) | at(m, i, j + 1) << 16;
		}
}

template <bool transposed> void load_matrices(unsigned r[4], const void *row, Site at) {
	if ((uintptr_t)row % 16 != 0 || !is_shared(row, 16))
		fail(at, "row of a matrix at %p: want shared memory, aligned to 16 bytes", row);
	Matrices m{r, (const uint16_t *)row};
	collective(load<transposed>, &m, at);
}

// Copies are made when they are waited for, as late as the card may make them.
void copy_async(void *to, const void *from, bool valid, Site);
void copies_commit();
void copies_wait(int groups);

} // namespace emulator

inline void mma(float d[4], const unsigned a[4], const unsigned b[2], emulator::Site at = emulator::Site::here()) {
	emulator::Mma m{d, a, b};
	emulator::collective(emulator::mma, &m, at);
}

inline void load_matrices(unsigned r[4], const void *row, emulator::Site at = emulator::Site::here()) { emulator::load_matrices<false>(r, row, at); }
inline void load_matrices_transposed(unsigned r[4], const void *row, emulator::Site at = emulator::Site::here()) { emulator::load_matrices<true>(r, row, at); }
inline void copy_async(void *to, const void *from, bool valid, emulator::Site at = emulator::Site::here()) { emulator::copy_async(to, from, valid, at); }
inline void copies_commit() { emulator::copies_commit(); }
template <int groups> inline void copies_wait() { emulator::copies_wait(groups); }

inline unsigned pack(float lo, float hi) { return emulator::round_bf16(lo) | (unsigned)emulator::round_bf16(hi) << 16; }
inline float widen_f16(unsigned short v) { _Float16 h; memcpy(&h, &v, 2); return (float)h; }
inline unsigned short round_f16(float v) { _Float16 h = (_Float16)v; unsigned short b; memcpy(&b, &h, 2); return v != v ? 0x7fff : b; }
inline float exp2_fast(float x) { float y = exp2f(x); return y < 0x1p-126f ? 0.0f : y; }

// Atomics, on device and shared memory.

#define EMULATOR_ATOMIC(T) \
	inline T atomicAdd(T *p, T v) { return __atomic_fetch_add(p, v, __ATOMIC_RELAXED); } \
	inline T atomicOr(T *p, T v) { return __atomic_fetch_or(p, v, __ATOMIC_RELAXED); } \
	inline T atomicAnd(T *p, T v) { return __atomic_fetch_and(p, v, __ATOMIC_RELAXED); } \
	inline T atomicExch(T *p, T v) { return __atomic_exchange_n(p, v, __ATOMIC_RELAXED); } \
	inline T atomicCAS(T *p, T old, T v) { __atomic_compare_exchange_n(p, &old, v, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED); return old; } \
	inline T atomicMax(T *p, T v) { T old = *p; while (old < v && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)); return old; } \
	inline T atomicMin(T *p, T v) { T old = *p; while (old > v && !__atomic_compare_exchange_n(p, &old, v, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)); return old; }
EMULATOR_ATOMIC(int)
EMULATOR_ATOMIC(unsigned)
EMULATOR_ATOMIC(unsigned long long)
#undef EMULATOR_ATOMIC

// Bits.

inline float __uint_as_float(unsigned v) { return emulator::float_of(v); }
inline float __int_as_float(int v) { return emulator::float_of((unsigned)v); }
inline unsigned __float_as_uint(float v) { return emulator::bits_of(v); }
inline int __float_as_int(float v) { return (int)emulator::bits_of(v); }
inline double __longlong_as_double(long long v) { double d; memcpy(&d, &v, 8); return d; }
inline long long __double_as_longlong(double v) { long long b; memcpy(&b, &v, 8); return b; }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __popcll(unsigned long long v) { return __builtin_popcountll(v); }
inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
inline int __clzll(long long v) { return v ? __builtin_clzll((unsigned long long)v) : 64; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __ffsll(long long v) { return __builtin_ffsll(v); }
inline unsigned __brev(unsigned v) {
	unsigned r = 0;
	for (int i = 0; i < 32; i++)
		r |= (v >> i & 1) << (31 - i);
	return r;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }

// Arithmetic that is rounded once and not contracted. The compiler contracts a·b + c
// elsewhere, as CUDA's does, so that a missing __fmul_rn shows.

#define EMULATOR_ROUNDED(T, name, expression) \
	inline __attribute__((always_inline)) T name { T r = expression; asm("" : "+x"(r)); return r; }
EMULATOR_ROUNDED(float, __fadd_rn(float a, float b), a + b)
EMULATOR_ROUNDED(float, __fsub_rn(float a, float b), a - b)
EMULATOR_ROUNDED(float, __fmul_rn(float a, float b), a *b)
EMULATOR_ROUNDED(float, __fdiv_rn(float a, float b), a / b)
EMULATOR_ROUNDED(float, __fsqrt_rn(float a), sqrtf(a))
EMULATOR_ROUNDED(float, __frcp_rn(float a), 1.0f / a)
EMULATOR_ROUNDED(float, __fmaf_rn(float a, float b, float c), fmaf(a, b, c))
EMULATOR_ROUNDED(double, __dadd_rn(double a, double b), a + b)
EMULATOR_ROUNDED(double, __dsub_rn(double a, double b), a - b)
EMULATOR_ROUNDED(double, __dmul_rn(double a, double b), a *b)
EMULATOR_ROUNDED(double, __ddiv_rn(double a, double b), a / b)
EMULATOR_ROUNDED(double, __dsqrt_rn(double a), sqrt(a))
EMULATOR_ROUNDED(double, __drcp_rn(double a), 1.0 / a)
EMULATOR_ROUNDED(double, __fma_rn(double a, double b, double c), fma(a, b, c))
#undef EMULATOR_ROUNDED

// Conversions. Those to integers clamp, and NaN is 0, as the card does it.

namespace emulator {
template <class I, class F> I clamp(F v) {
	if (v != v)
		return 0;
	if (v <= (F)std::numeric_limits<I>::min())
		return std::numeric_limits<I>::min();
	if (v >= (F)std::numeric_limits<I>::max())
		return std::numeric_limits<I>::max();
	return (I)v;
}
} // namespace emulator

inline int __float2int_rn(float v) { return emulator::clamp<int>(rintf(v)); }
inline int __float2int_rz(float v) { return emulator::clamp<int>(truncf(v)); }
inline int __float2int_rd(float v) { return emulator::clamp<int>(floorf(v)); }
inline int __float2int_ru(float v) { return emulator::clamp<int>(ceilf(v)); }
inline unsigned __float2uint_rn(float v) { return emulator::clamp<unsigned>(rintf(v)); }
inline unsigned __float2uint_rz(float v) { return emulator::clamp<unsigned>(truncf(v)); }
inline int __double2int_rn(double v) { return emulator::clamp<int>(rint(v)); }
inline long long __double2ll_rn(double v) { return emulator::clamp<long long>(rint(v)); }
inline long long __double2ll_rz(double v) { return emulator::clamp<long long>(trunc(v)); }
inline float __double2float_rn(double v) { return (float)v; }
inline float __int2float_rn(int v) { return (float)v; }
inline float __uint2float_rn(unsigned v) { return (float)v; }
inline float __ll2float_rn(long long v) { return (float)v; }
inline double __int2double_rn(int v) { return v; }
inline double __ll2double_rn(long long v) { return (double)v; }

// Functions that <cmath> lacks.

inline float rsqrtf(float v) { return 1.0f / sqrtf(v); }
inline double rsqrt(double v) { return 1.0 / sqrt(v); }
inline float __expf(float v) { return expf(v); }
inline float __logf(float v) { return logf(v); }
inline float __log2f(float v) { return log2f(v); }
inline float __fdividef(float a, float b) { return a / b; }
template <class T> inline T __ldg(const T *p) { return *p; }

#define EMULATOR_MINMAX(T) \
	inline T min(T a, T b) { return b < a ? b : a; } \
	inline T max(T a, T b) { return a < b ? b : a; }
EMULATOR_MINMAX(int)
EMULATOR_MINMAX(unsigned)
EMULATOR_MINMAX(long)
EMULATOR_MINMAX(unsigned long)
EMULATOR_MINMAX(long long)
EMULATOR_MINMAX(unsigned long long)
#undef EMULATOR_MINMAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }

// Vectors.

#define EMULATOR_VECTOR(T, name) \
	struct alignas(2 * sizeof(T)) name##2 { T x, y; }; \
	struct alignas(4 * sizeof(T) > 16 ? 16 : 4 * sizeof(T)) name##4 { T x, y, z, w; }; \
	inline name##2 make_##name##2(T x, T y) { return {x, y}; } \
	inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMULATOR_VECTOR(unsigned char, uchar)
EMULATOR_VECTOR(short, short)
EMULATOR_VECTOR(unsigned short, ushort)
EMULATOR_VECTOR(int, int)
EMULATOR_VECTOR(unsigned, uint)
EMULATOR_VECTOR(long long, longlong)
EMULATOR_VECTOR(unsigned long long, ulonglong)
EMULATOR_VECTOR(float, float)
EMULATOR_VECTOR(double, double)
#undef EMULATOR_VECTOR
