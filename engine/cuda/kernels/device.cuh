// What the kernels need beside CUDA C++ itself: bfloat16 as bits, sums over a warp
// and a block, and the few instructions that only PTX names. With CREPE_EMULATOR
// emulator.h has those in plain C++, and everything else that a compiler of CUDA
// knows by itself.
#pragma once

typedef unsigned short bf16; // its bits
typedef unsigned short f16;  // its bits

static const unsigned all_lanes = 0xffffffffu;

#ifndef CREPE_EMULATOR
extern __shared__ unsigned char dynamic_shared[];
#endif

// Bits of bfloat16 and float16.

__device__ __forceinline__ float widen(bf16 v) { return __uint_as_float((unsigned)v << 16); }

#ifndef CREPE_EMULATOR

// pack returns hi and lo rounded to bfloat16, to nearest, ties to even.
__device__ __forceinline__ unsigned pack(float lo, float hi) {
	unsigned d;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(d) : "f"(hi), "f"(lo));
	return d;
}

__device__ __forceinline__ float widen_f16(f16 v) {
	float f;
	asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(v));
	return f;
}

__device__ __forceinline__ f16 round_f16(float v) {
	f16 h;
	asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(v));
	return h;
}

// mma adds the product of a, 16 × 16 by rows, and b, 16 × 8 by columns, in bfloat16 to
// d, 16 × 8 in float32: mma.sync.aligned.m16n8k16.row.col. A lane holds of each what
// the PTX ISA says.
__device__ __forceinline__ void mma(float d[4], const unsigned a[4], const unsigned b[2]) {
	asm volatile(
		"mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
		: "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
		: "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// load_matrices reads four 8 × 8 matrices of bfloat16 from shared memory: lane l gives
// the address of row l%8 of matrix l/8. Transposed, a lane gets columns in place of rows.
__device__ __forceinline__ void load_matrices(unsigned r[4], const void *row) {
	unsigned at = (unsigned)__cvta_generic_to_shared(row);
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
		: "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

__device__ __forceinline__ void load_matrices_transposed(unsigned r[4], const void *row) {
	unsigned at = (unsigned)__cvta_generic_to_shared(row);
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
		: "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(at) : "memory");
}

// copy_async starts a copy of 16 bytes from device to shared memory, both aligned to 16
// bytes; of zeros if not valid. copies_commit closes a group of copies, copies_wait
// waits until at most that many groups are under way.
__device__ __forceinline__ void copy_async(void *shared, const void *global, bool valid) {
	unsigned at = (unsigned)__cvta_generic_to_shared(shared);
	int bytes = valid ? 16 : 0;
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" : : "r"(at), "l"(global), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

template <int groups> __device__ __forceinline__ void copies_wait() {
	asm volatile("cp.async.wait_group %0;" : : "n"(groups) : "memory");
}

// exp2_fast is 2^x to some 2 units in the last place; results below 2^-126 are 0.
__device__ __forceinline__ float exp2_fast(float x) {
	float y;
	asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
	return y;
}

#else
#include "emulator.h" // defines dynamic_shared and the functions above
#endif

__device__ __forceinline__ bf16 round_bf16(float v) { return (bf16)pack(v, 0.0f); }

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

// Sums of a value of every lane, and of every thread of a block; all get the result.
// The order of additions depends on the number of threads only.

__device__ __forceinline__ float warp_sum(float v) {
	for (int o = 16; o > 0; o >>= 1)
		v += __shfl_xor_sync(all_lanes, v, o);
	return v;
}

__device__ __forceinline__ double warp_sum(double v) {
	for (int o = 16; o > 0; o >>= 1)
		v += __shfl_xor_sync(all_lanes, v, o);
	return v;
}

__device__ __forceinline__ float warp_max(float v) {
	for (int o = 16; o > 0; o >>= 1)
		v = fmaxf(v, __shfl_xor_sync(all_lanes, v, o));
	return v;
}

// block_sum needs 32 elements of shared memory that nothing else uses meanwhile.
template <typename T> __device__ __forceinline__ T block_sum(T v, T *shared) {
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
	v = warp_sum(v);
	__syncthreads();
	if (lane == 0)
		shared[warp] = v;
	__syncthreads();
	v = lane < warps ? shared[lane] : (T)0;
	return warp_sum(v);
}

__device__ __forceinline__ float block_max(float v, float *shared) {
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = (blockDim.x + 31) / 32;
	v = warp_max(v);
	__syncthreads();
	if (lane == 0)
		shared[warp] = v;
	__syncthreads();
	v = lane < warps ? shared[lane] : __uint_as_float(0xff800000u); // -Inf
	return warp_max(v);
}
