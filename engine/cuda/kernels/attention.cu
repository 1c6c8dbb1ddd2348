// Causal attention, see engine.Attention. Keys and values lie in a cache, a row of
// kv_heads · dim for each token, in float32 or bfloat16.
#include "device.cuh"

// place norms the heads of each row of src (norm may be null), turns their first 2·half
// elements to the row's position, pos and on, and writes them to dst as float32 or, if
// rounded, bfloat16. Rows of dst are dst_stride apart; dst may be src. cosines and sines
// are positions × half. A warp is a head; blockIdx.x is the row.
extern "C" __global__ void place(void *dst, long long dst_stride, const float *src, int heads, int dim, const float *norm, float eps, const float *cosines, const float *sines, int half, int pos, int rounded) {
	int head = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
	if (head >= heads)
		return;
	const float *x = src + ((long long)blockIdx.x * heads + head) * dim;
	float by = 1;
	if (norm) {
		float sum = 0;
		for (int i = lane; i < dim; i += 32)
			sum += x[i] * x[i];
		by = 1.0f / sqrtf(warp_sum(sum) / dim + eps);
	}
	__syncwarp();
	const float *c = cosines + (long long)(pos + blockIdx.x) * half, *s = sines + (long long)(pos + blockIdx.x) * half;
	long long at = blockIdx.x * dst_stride + (long long)head * dim;
	for (int i = lane; i < dim - half; i += 32) {
		// Lane's own: the pair (i, i + half), or an element after the last pair.
		int low = i < half ? i : i + half, high = i + half;
		float a = x[low] * by;
		if (norm)
			a *= norm[low];
		if (i < half) {
			float b = x[high] * by;
			if (norm)
				b *= norm[high];
			float turned = a * c[i] - b * s[i];
			b = b * c[i] + a * s[i];
			a = turned;
			if (rounded)
				((bf16 *)dst)[at + high] = round_bf16(b);
			else
				((float *)dst)[at + high] = b;
		}
		if (rounded)
			((bf16 *)dst)[at + low] = round_bf16(a);
		else
			((float *)dst)[at + low] = a;
	}
}

__device__ __forceinline__ float cached(const void *x, long long i, int rounded) {
	return rounded ? widen(((const bf16 *)x)[i]) : ((const float *)x)[i];
}

// attend_any replaces each query of q, a row of heads · dim, by what it yields; the first
// is at position past. A block of 128 threads is a query's head: any width, few queries,
// or float32. Shared memory: dim elements.
extern "C" __global__ void attend_any(float *q, const void *keys, const void *values, int past, int heads, int kv_heads, int dim, float scale, int window, float soft_cap, int rounded) {
	const int tile = 128;
	__shared__ float weights[tile], sums[32];
	float *query = (float *)dynamic_shared;
	int pos = past + blockIdx.x, head = blockIdx.y, tid = threadIdx.x;
	float *to = q + ((long long)blockIdx.x * heads + head) * dim;
	long long stride = (long long)kv_heads * dim;
	long long off = (long long)(head / (heads / kv_heads)) * dim;
	for (int i = tid; i < dim; i += tile)
		query[i] = rounded ? widen(round_bf16(to[i])) : to[i];
	int first = window > 0 ? max(0, pos - window + 1) : 0;
	float top = __uint_as_float(0xff800000u), total = 0;
	float out[4] = {0, 0, 0, 0}; // elements tid, tid + 128, ...
	for (int j0 = first; j0 <= pos; j0 += tile) {
		__syncthreads();
		int j = j0 + tid;
		float s = __uint_as_float(0xff800000u);
		if (j <= pos) {
			s = 0;
			for (int i = 0; i < dim; i++)
				s += query[i] * cached(keys, j * stride + off + i, rounded);
			s *= scale;
			if (soft_cap > 0)
				s = soft_cap * tanhf(s / soft_cap);
		}
		float now = block_max(s, sums);
		now = fmaxf(now, top);
		float w = j <= pos ? expf(s - now) : 0;
		float shrink = expf(top - now);
		if (top == now)
			shrink = 1;
		top = now;
		weights[tid] = w;
		total = total * shrink + block_sum(w, sums);
		__syncthreads();
		int n = min(tile, pos - j0 + 1);
		for (int e = 0; e < 4; e++) {
			int i = tid + e * tile;
			if (i >= dim)
				break;
			float sum = out[e] * shrink;
			for (int j = 0; j < n; j++)
				sum += weights[j] * cached(values, (j0 + j) * stride + off + i, rounded);
			out[e] = sum;
		}
	}
	for (int e = 0; e < 4; e++)
		if (tid + e * tile < dim)
			to[tid + e * tile] = out[e] / total;
}

// attend_tile is attention by tensor cores: 128 queries of a head, 16 of each warp, pass
// over tiles of keys; scores exist for a tile only (Dao et al. 2022, arXiv:2205.14135). q is
// bfloat16, tokens × heads · DIM; what it yields goes to out, float32, in the same places.
template <int DIM, int KEYS>
__device__ __forceinline__ void attend_tile(float *out, const bf16 *q, const bf16 *keys, const bf16 *values, int past, int tokens, int heads, int kv_heads, float scale, int window, float soft_cap) {
	const int queries = 128, stride = DIM + 8; // the pad spreads rows over the banks
	const bool kept = DIM <= 128;              // queries stay in registers
	const float log2e = 1.4426950408889634f, minus_infinity = __uint_as_float(0xff800000u);
	bf16 *shared_keys = (bf16 *)dynamic_shared;              // 2 × KEYS × stride
	bf16 *shared_values = shared_keys + 2 * KEYS * stride;   // the same
	bf16 *shared_queries = kept ? shared_keys : shared_values + 2 * KEYS * stride;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	int tile = gridDim.x - 1 - blockIdx.x; // those with most keys first
	int q0 = tile * queries, head = blockIdx.y;
	long long row = (long long)heads * DIM, kv_row = (long long)kv_heads * DIM;
	q += (long long)head * DIM;
	out += (long long)head * DIM;
	keys += (long long)(head / (heads / kv_heads)) * DIM;
	values += (long long)(head / (heads / kv_heads)) * DIM;

	const int pieces = DIM / 8; // of 16 bytes in a row
	for (int i = threadIdx.x; i < queries * pieces; i += 256) {
		int r = i / pieces, c = i % pieces * 8;
		bool valid = q0 + r < tokens;
		copy_async(&shared_queries[r * stride + c], q + (valid ? (q0 + r) * row + c : 0), valid);
	}
	copies_commit();
	copies_wait<0>();
	__syncthreads();
	unsigned a[kept ? DIM / 16 : 1][4];
	const bf16 *own = &shared_queries[(warp * 16 + lane % 16) * stride + lane / 16 * 8];
	if (kept) {
#pragma unroll
		for (int k = 0; k < DIM / 16; k++)
			load_matrices(a[kept ? k : 0], own + k * 16);
		__syncthreads();
	}

	int last = past + min(q0 + queries, tokens) - 1; // position of the last query
	int first = window > 0 ? max(0, past + q0 - window + 1) / KEYS * KEYS : 0;
	auto fetch = [&](int j0, int buffer) {
		for (int i = threadIdx.x; i < KEYS * pieces; i += 256) {
			int r = i / pieces, c = i % pieces * 8;
			bool valid = j0 + r <= last;
			long long from = valid ? (j0 + r) * kv_row + c : 0;
			copy_async(&shared_keys[(buffer * KEYS + r) * stride + c], keys + from, valid);
			copy_async(&shared_values[(buffer * KEYS + r) * stride + c], values + from, valid);
		}
		copies_commit();
	};
	float o[DIM / 8][4];
#pragma unroll
	for (int d = 0; d < DIM / 8; d++)
		o[d][0] = o[d][1] = o[d][2] = o[d][3] = 0;
	float top[2] = {minus_infinity, minus_infinity}, total[2] = {0, 0};
	int r0 = past + q0 + warp * 16 + lane / 4; // position of the lane's first row; the other is 8 below
	float by = soft_cap > 0 ? scale : scale * log2e;
	fetch(first, 0);
	int buffer = 0;
	for (int j0 = first; j0 <= last; j0 += KEYS) {
		if (j0 + KEYS <= last)
			fetch(j0 + KEYS, buffer ^ 1);
		else
			copies_commit();
		copies_wait<1>();
		__syncthreads();
		float s[KEYS / 8][4];
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
			s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
		const bf16 *k_tile = &shared_keys[(buffer * KEYS + lane / 16 * 8 + lane % 8) * stride + lane / 8 % 2 * 8];
#pragma unroll
		for (int k = 0; k < DIM / 16; k++) {
			if (!kept)
				load_matrices(a[0], own + k * 16);
#pragma unroll
			for (int n = 0; n < KEYS / 16; n++) {
				unsigned b[4];
				load_matrices(b, k_tile + n * 16 * stride + k * 16);
				mma(s[2 * n], a[kept ? k : 0], b);
				mma(s[2 * n + 1], a[kept ? k : 0], b + 2);
			}
		}
		bool cut = j0 + KEYS - 1 > past + q0 + warp * 16 || (window > 0 && j0 <= past + q0 + warp * 16 + 15 - window);
		float now[2] = {top[0], top[1]};
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
			for (int e = 0; e < 4; e++) {
				float v = s[n][e] * by;
				if (soft_cap > 0)
					v = soft_cap * log2e * tanhf(v / soft_cap);
				if (cut) {
					int pos = r0 + e / 2 * 8, j = j0 + n * 8 + lane % 4 * 2 + e % 2;
					if (j > pos || (window > 0 && j <= pos - window))
						v = minus_infinity;
				}
				s[n][e] = v;
				now[e / 2] = fmaxf(now[e / 2], v);
			}
		float shrink[2];
#pragma unroll
		for (int e = 0; e < 2; e++) {
			now[e] = fmaxf(now[e], __shfl_xor_sync(all_lanes, now[e], 1));
			now[e] = fmaxf(now[e], __shfl_xor_sync(all_lanes, now[e], 2));
			float base = now[e] == minus_infinity ? 0 : now[e]; // a row that has seen no key yet
			shrink[e] = exp2_fast(top[e] - base);
			top[e] = now[e];
			now[e] = base;
			total[e] *= shrink[e];
		}
#pragma unroll
		for (int n = 0; n < KEYS / 8; n++)
#pragma unroll
			for (int e = 0; e < 4; e++) {
				s[n][e] = exp2_fast(s[n][e] - now[e / 2]);
				total[e / 2] += s[n][e];
			}
#pragma unroll
		for (int d = 0; d < DIM / 8; d++)
#pragma unroll
			for (int e = 0; e < 4; e++)
				o[d][e] *= shrink[e / 2];
		const bf16 *v_tile = &shared_values[(buffer * KEYS + lane % 16) * stride + lane / 16 * 8];
#pragma unroll
		for (int k = 0; k < KEYS / 16; k++) {
			unsigned p[4] = {
				pack(s[2 * k][0], s[2 * k][1]), pack(s[2 * k][2], s[2 * k][3]),
				pack(s[2 * k + 1][0], s[2 * k + 1][1]), pack(s[2 * k + 1][2], s[2 * k + 1][3])};
#pragma unroll
			for (int d = 0; d < DIM / 16; d++) {
				unsigned b[4];
				load_matrices_transposed(b, v_tile + k * 16 * stride + d * 16);
				mma(o[2 * d], p, b);
				mma(o[2 * d + 1], p, b + 2);
			}
		}
		buffer ^= 1;
		__syncthreads();
	}
#pragma unroll
	for (int e = 0; e < 2; e++) {
		total[e] += __shfl_xor_sync(all_lanes, total[e], 1);
		total[e] += __shfl_xor_sync(all_lanes, total[e], 2);
		int t = q0 + warp * 16 + lane / 4 + e * 8;
		if (t >= tokens)
			continue;
		float *to = out + t * row + lane % 4 * 2;
#pragma unroll
		for (int d = 0; d < DIM / 8; d++) {
			float2 v;
			v.x = o[d][2 * e] / total[e];
			v.y = o[d][2 * e + 1] / total[e];
			*(float2 *)(to + d * 8) = v;
		}
	}
}

// The widths of heads that attend_tile is made for: attend_W.
extern "C" __global__ void __launch_bounds__(256) attend_16(float *out, const bf16 *q, const bf16 *keys, const bf16 *values, int past, int tokens, int heads, int kv_heads, float scale, int window, float soft_cap) {
	attend_tile<16, 64>(out, q, keys, values, past, tokens, heads, kv_heads, scale, window, soft_cap);
}
extern "C" __global__ void __launch_bounds__(256) attend_64(float *out, const bf16 *q, const bf16 *keys, const bf16 *values, int past, int tokens, int heads, int kv_heads, float scale, int window, float soft_cap) {
	attend_tile<64, 64>(out, q, keys, values, past, tokens, heads, kv_heads, scale, window, soft_cap);
}
extern "C" __global__ void __launch_bounds__(256) attend_80(float *out, const bf16 *q, const bf16 *keys, const bf16 *values, int past, int tokens, int heads, int kv_heads, float scale, int window, float soft_cap) {
	attend_tile<80, 64>(out, q, keys, values, past, tokens, heads, kv_heads, scale, window, soft_cap);
}
extern "C" __global__ void __launch_bounds__(256) attend_96(float *out, const bf16 *q, const bf16 *keys, const bf16 *values, int past, int tokens, int heads, int kv_heads, float scale, int window, float soft_cap) {
	attend_tile<96, 64>(out, q, keys, values, past, tokens, heads, kv_heads, scale, window, soft_cap);
}
extern "C" __global__ void __launch_bounds__(256) attend_128(float *out, const bf16 *q, const bf16 *keys, const bf16 *values, int past, int tokens, int heads, int kv_heads, float scale, int window, float soft_cap) {
	attend_tile<128, 64>(out, q, keys, values, past, tokens, heads, kv_heads, scale, window, soft_cap);
}
extern "C" __global__ void __launch_bounds__(256) attend_256(float *out, const bf16 *q, const bf16 *keys, const bf16 *values, int past, int tokens, int heads, int kv_heads, float scale, int window, float soft_cap) {
	attend_tile<256, 32>(out, q, keys, values, past, tokens, heads, kv_heads, scale, window, soft_cap);
}
