// Gated DeltaNet, see engine.DeltaNet: the recurrence token by token.
#include "device.cuh"

__device__ __forceinline__ float silu(float x) { return x / (1.0f + expf(-x)); }

// delta_convolve writes silu of the causal convolution of x, tokens × channels, over
// taps tokens; before, (taps − 1) × channels, is what came before the first. w_i
// multiplies the token taps − 1 − i before; those from taps on are null.
extern "C" __global__ void delta_convolve(float *dst, const float *x, const float *before, const float *w0, const float *w1, const float *w2, const float *w3, const float *w4, const float *w5, const float *w6, const float *w7, int taps, int channels, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	const float *w[8] = {w0, w1, w2, w3, w4, w5, w6, w7};
	long long t = i / channels;
	int c = (int)(i % channels);
	float sum = 0;
#pragma unroll
	for (int k = 0; k < 8; k++) {
		if (k >= taps)
			break;
		long long at = t - (taps - 1) + k;
		float v = at >= 0 ? x[at * channels + c] : before[(at + taps - 1) * channels + c];
		sum += v * w[k][c];
	}
	dst[i] = silu(sum);
}

// delta_keep writes the last rows inputs, of those before and x together, to dst.
extern "C" __global__ void delta_keep(float *dst, const float *x, const float *before, int rows, int tokens, int channels) {
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= rows * channels)
		return;
	int at = tokens - rows + i / channels, c = i % channels;
	dst[i] = at >= 0 ? x[(long long)at * channels + c] : before[(long long)(at + rows) * channels + c];
}

// delta_unit scales the heads of queries and keys, the first 2 · heads of dim elements of each row of
// x, to length 1, and queries, the first half of them, by dim^−½. A warp is a head.
extern "C" __global__ void delta_unit(float *x, int heads, int dim, int channels) {
	int head = blockIdx.y * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
	if (head >= 2 * heads)
		return;
	float *v = x + (long long)blockIdx.x * channels + (long long)head * dim;
	float sum = 0;
	for (int i = lane; i < dim; i += 32)
		sum += v[i] * v[i];
	float by = 1.0f / sqrtf(warp_sum(sum) + 1e-6f);
	if (head < heads)
		by /= sqrtf((float)dim);
	for (int i = lane; i < dim; i += 32)
		v[i] *= by;
}

// delta_scan runs the recurrence. A block of 128 threads is 32 columns of a value head's
// state; four lanes side by side share a column, lane p of them elements p, p + 4, ...
// blockIdx.y is the head. x are convolved and scaled queries, keys and values; out is
// tokens × value_heads · value_dim.
template <int DIM> // at least key_dim
__device__ __forceinline__ void scan(float *out, float *state, const float *x, const float *beta, const float *decay, const float *rate, const float *bias, int tokens, int key_heads, int value_heads, int key_dim, int value_dim) {
	const int some = 8, own = DIM / 4; // tokens that are read together, elements of a lane
	__shared__ float q[some][DIM], k[some][DIM], betas[some], decays[some];
	int head = blockIdx.y, part = threadIdx.x % 4, j = blockIdx.x * 32 + threadIdx.x / 4;
	int key_head = head / (value_heads / key_heads);
	int channels = 2 * key_heads * key_dim + value_heads * value_dim;
	float s[own];
#pragma unroll
	for (int i = 0; i < own; i++) {
		int row = 4 * i + part;
		s[i] = row < key_dim && j < value_dim ? state[((long long)head * key_dim + row) * value_dim + j] : 0;
	}
	for (int t0 = 0; t0 < tokens; t0 += some) {
		int n = min(some, tokens - t0);
		__syncthreads();
		for (int i = threadIdx.x; i < n * DIM; i += 128) {
			int t = i / DIM, d = i % DIM;
			const float *row = x + (long long)(t0 + t) * channels + key_head * key_dim + d;
			q[t][d] = d < key_dim ? row[0] : 0;
			k[t][d] = d < key_dim ? row[key_heads * key_dim] : 0;
		}
		if (threadIdx.x < n) {
			int t = threadIdx.x;
			long long at = (long long)(t0 + t) * value_heads + head;
			float v = decay[at] + bias[head];
			float softplus = fmaxf(v, 0) + log1pf(expf(-fabsf(v)));
			betas[t] = sigmoid(beta[at]);
			decays[t] = expf(-rate[head] * softplus);
		}
		__syncthreads();
		for (int t = 0; t < n; t++) {
			float keep = decays[t], read = 0, o = 0;
#pragma unroll
			for (int i = 0; i < own; i++) {
				s[i] *= keep;
				read += s[i] * k[t][4 * i + part];
			}
			read += __shfl_xor_sync(all_lanes, read, 1);
			read += __shfl_xor_sync(all_lanes, read, 2);
			float v = j < value_dim ? x[(long long)(t0 + t) * channels + 2 * key_heads * key_dim + head * value_dim + j] : 0;
			float d = betas[t] * (v - read);
#pragma unroll
			for (int i = 0; i < own; i++) {
				s[i] += k[t][4 * i + part] * d;
				o += s[i] * q[t][4 * i + part];
			}
			o += __shfl_xor_sync(all_lanes, o, 1);
			o += __shfl_xor_sync(all_lanes, o, 2);
			if (part == 0 && j < value_dim)
				out[((long long)(t0 + t) * value_heads + head) * value_dim + j] = o;
		}
	}
#pragma unroll
	for (int i = 0; i < own; i++) {
		int row = 4 * i + part;
		if (row < key_dim && j < value_dim)
			state[((long long)head * key_dim + row) * value_dim + j] = s[i];
	}
}

extern "C" __global__ void delta_scan_64(float *out, float *state, const float *x, const float *beta, const float *decay, const float *rate, const float *bias, int tokens, int key_heads, int value_heads, int key_dim, int value_dim) {
	scan<64>(out, state, x, beta, decay, rate, bias, tokens, key_heads, value_heads, key_dim, value_dim);
}
extern "C" __global__ void delta_scan_128(float *out, float *state, const float *x, const float *beta, const float *decay, const float *rate, const float *bias, int tokens, int key_heads, int value_heads, int key_dim, int value_dim) {
	scan<128>(out, state, x, beta, decay, rate, bias, tokens, key_heads, value_heads, key_dim, value_dim);
}
extern "C" __global__ void delta_scan_256(float *out, float *state, const float *x, const float *beta, const float *decay, const float *rate, const float *bias, int tokens, int key_heads, int value_heads, int key_dim, int value_dim) {
	scan<256>(out, state, x, beta, decay, rate, bias, tokens, key_heads, value_heads, key_dim, value_dim);
}

// delta_gate writes norm(x) · silu(z) into z, head by head of dim elements. A warp is a
// head of a row.
extern "C" __global__ void delta_gate(float *z, const float *x, const float *w, float eps, int dim, int heads) {
	int head = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
	if (head >= heads)
		return;
	const float *v = x + (long long)head * dim;
	float *to = z + (long long)head * dim;
	float sum = 0;
	for (int i = lane; i < dim; i += 32)
		sum += v[i] * v[i];
	float by = 1.0f / sqrtf(warp_sum(sum) / dim + eps);
	for (int i = lane; i < dim; i += 32)
		to[i] = v[i] * by * w[i] * silu(to[i]);
}
