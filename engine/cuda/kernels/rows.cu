// Operations on rows of activations, float32, row-major: a row is a token.
#include "device.cuh"

// rms_norm writes x_j · w_j / sqrt(mean(x²) + eps) of each row to dst, float32 or, if
// rounded, bfloat16. A block is a row; dst may be x.
extern "C" __global__ void rms_norm(void *dst, const float *x, const float *w, float eps, int cols, int rounded) {
	__shared__ float sums[32];
	const float *row = x + (long long)blockIdx.x * cols;
	float sum = 0;
	for (int j = threadIdx.x; j < cols; j += blockDim.x)
		sum += row[j] * row[j];
	sum = block_sum(sum, sums);
	float by = 1.0f / sqrtf(sum / cols + eps);
	long long at = (long long)blockIdx.x * cols;
	for (int j = threadIdx.x; j < cols; j += blockDim.x) {
		float v = row[j] * by * w[j];
		if (rounded)
			((bf16 *)dst)[at + j] = round_bf16(v);
		else
			((float *)dst)[at + j] = v;
	}
}

// round_all writes n elements rounded to bfloat16.
extern "C" __global__ void round_all(bf16 *dst, const float *x, long long n) {
	long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 4;
	if (i + 4 <= n && (((unsigned long long)x | (unsigned long long)(dst)) & 15) == 0) {
		float4 v = *(const float4 *)(x + i);
		uint2 r;
		r.x = pack(v.x, v.y);
		r.y = pack(v.z, v.w);
		*(uint2 *)(dst + i) = r;
		return;
	}
	for (long long k = i; k < i + 4 && k < n; k++)
		dst[k] = round_bf16(x[k]);
}

// widen_all writes n elements of bfloat16 (type 1) or float16 (2) as float32.
extern "C" __global__ void widen_all(float *dst, const unsigned short *x, long long n, int type) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		dst[i] = type == 2 ? widen_f16(x[i]) : widen(x[i]);
}

// add adds y to x, n elements.
extern "C" __global__ void add(float *x, const float *y, long long n) {
	long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 4;
	if (i + 4 <= n && (((unsigned long long)x | (unsigned long long)y) & 15) == 0) {
		float4 a = *(float4 *)(x + i), b = *(const float4 *)(y + i);
		a.x += b.x, a.y += b.y, a.z += b.z, a.w += b.w;
		*(float4 *)(x + i) = a;
		return;
	}
	for (long long k = i; k < i + 4 && k < n; k++)
		x[k] += y[k];
}

// add_normed adds the norm of each row of y to x. A block is a row.
extern "C" __global__ void add_normed(float *x, const float *y, const float *w, float eps, int cols) {
	__shared__ float sums[32];
	long long at = (long long)blockIdx.x * cols;
	float sum = 0;
	for (int j = threadIdx.x; j < cols; j += blockDim.x)
		sum += y[at + j] * y[at + j];
	sum = block_sum(sum, sums);
	float by = 1.0f / sqrtf(sum / cols + eps);
	for (int j = threadIdx.x; j < cols; j += blockDim.x)
		x[at + j] += y[at + j] * by * w[j];
}

// subtract writes x − y, n elements; dst may be either.
extern "C" __global__ void subtract(float *dst, const float *x, const float *y, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		dst[i] = x[i] - y[i];
}

// squares writes Σ x² of each row. A block is a row.
extern "C" __global__ void squares(double *dst, const float *x, int cols) {
	__shared__ double sums[32];
	const float *row = x + (long long)blockIdx.x * cols;
	double sum = 0;
	for (int j = threadIdx.x; j < cols; j += blockDim.x)
		sum += (double)row[j] * row[j];
	sum = block_sum(sum, sums);
	if (threadIdx.x == 0)
		dst[blockIdx.x] = sum;
}

// add_bias adds b to each row of x.
extern "C" __global__ void add_bias(float *x, const float *b, int cols, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		x[i] += b[i % cols];
}

// activate is SiLU (0) or the approximation of GELU by tanh (1).
__device__ __forceinline__ float activation(float x, int kind) {
	if (kind == 1)
		return 0.5f * x * (1.0f + tanhf(0.7978845608f * (x + 0.044715f * x * x * x)));
	return x * sigmoid(x);
}

// gated writes act(gate + gate_bias) · (up + up_bias), n elements in rows of cols, as
// float32 or, if rounded, bfloat16. A bias may be null.
extern "C" __global__ void gated(void *dst, const float *gate, const float *up, const float *gate_bias, const float *up_bias, int cols, long long n, int kind, int rounded) {
	long long i = ((long long)blockIdx.x * blockDim.x + threadIdx.x) * 2;
	if (i >= n)
		return;
	float y[2] = {0, 0};
	for (int k = 0; k < 2; k++) {
		if (i + k >= n)
			break;
		float g = gate[i + k], u = up[i + k];
		if (gate_bias)
			g += gate_bias[(i + k) % cols];
		if (up_bias)
			u += up_bias[(i + k) % cols];
		y[k] = activation(g, kind) * u;
	}
	if (!rounded) {
		((float *)dst)[i] = y[0];
		if (i + 1 < n)
			((float *)dst)[i + 1] = y[1];
	} else if (i + 1 < n && ((unsigned long long)dst & 3) == 0)
		*(unsigned *)((bf16 *)dst + i) = pack(y[0], y[1]);
	else
		for (int k = 0; k < 2 && i + k < n; k++)
			((bf16 *)dst)[i + k] = round_bf16(y[k]);
}

// halves returns where, in rows of 2·cols elements, the first of the pair of halves of dim
// elements lies that element i of rows of cols goes with; the other is dim behind it.
__device__ __forceinline__ long long halves(long long i, int cols, int dim) {
	long long t = i / cols;
	int j = (int)(i % cols);
	return t * 2 * cols + j / dim * 2 * dim + j % dim;
}

// first_halves writes the first dim of every 2·dim elements of x into dst, rows of cols.
extern "C" __global__ void first_halves(float *dst, const float *x, int cols, int dim, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		dst[i] = x[halves(i, cols, dim)];
}

// gate_halves multiplies x, rows of cols, with the sigmoid of the last dim of every
// 2·dim elements of gates.
extern "C" __global__ void gate_halves(float *x, const float *gates, int cols, int dim, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		x[i] *= sigmoid(gates[halves(i, cols, dim) + dim]);
}

// routed is engine.Routed.
struct routed {
	long long token;
	float weight, unused;
};

// gather writes row tokens[i].token of x into row i of dst. A block is a row.
extern "C" __global__ void gather(float *dst, const float *x, const routed *tokens, int cols) {
	const float *from = x + tokens[blockIdx.x].token * cols;
	float *to = dst + (long long)blockIdx.x * cols;
	for (int j = threadIdx.x; j < cols; j += blockDim.x)
		to[j] = from[j];
}

// scatter_add adds row i of y, times its weight, to row tokens[i].token of x. No token
// comes twice. A block is a row.
extern "C" __global__ void scatter_add(float *x, const float *y, const routed *tokens, int cols) {
	routed r = tokens[blockIdx.x];
	const float *from = y + (long long)blockIdx.x * cols;
	float *to = x + r.token * cols;
	for (int j = threadIdx.x; j < cols; j += blockDim.x)
		to[j] += r.weight * from[j];
}

// choice is an expert of a token, its weight below 0 if the token goes nowhere.
struct choice {
	int expert;
	float weight;
};

// route writes the used likeliest experts of each token by its logits, which become
// probabilities (see engine.Stream). A warp is a token.
extern "C" __global__ void route(choice *dst, float *logits, int experts, int used, int renormalise, int tokens) {
	int t = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
	if (t >= tokens)
		return;
	float *p = logits + (long long)t * experts;
	float top = __uint_as_float(0xff800000u);
	for (int e = lane; e < experts; e += 32)
		top = p[e] > top ? p[e] : top;
	top = warp_max(top);
	double sum = 0;
	for (int e = lane; e < experts; e += 32)
		sum += exp((double)p[e] - top);
	sum = warp_sum(sum);
	for (int e = lane; e < experts; e += 32)
		p[e] = (float)(exp((double)p[e] - top) / sum);
	float total = 0;
	bool none = false;
	for (int i = 0; i < used; i++) {
		float best = -1;
		int at = experts;
		for (int e = lane; e < experts; e += 32)
			if (p[e] > best)
				best = p[e], at = e;
		for (int o = 16; o > 0; o >>= 1) {
			float other = __shfl_xor_sync(all_lanes, best, o);
			int where = __shfl_xor_sync(all_lanes, at, o);
			if (other > best || (other == best && where < at))
				best = other, at = where;
		}
		none |= !(best >= 0);
		if (!none && at % 32 == lane)
			p[at] = -1;
		if (lane == 0)
			dst[(long long)t * used + i] = choice{at, best};
		total += best;
	}
	if (lane == 0)
		for (int i = 0; i < used; i++) {
			choice *c = &dst[(long long)t * used + i];
			c->weight = none ? -1 : renormalise ? c->weight / total : c->weight;
		}
}

// cap replaces n values x by limit·tanh(x/limit).
extern "C" __global__ void cap(float *x, float limit, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		x[i] = limit * tanhf(x[i] / limit);
}

// log_sum is what log_sums writes of a token: the largest logit, that of the target if
// it is among these, and Σ exp(logit − largest).
struct log_sum {
	float largest, target;
	double sum;
};

// log_sums takes a part of the vocabulary, n logits of each token, of which the first is
// token first's. A block is a token.
extern "C" __global__ void log_sums(log_sum *dst, const float *logits, int n, int first, const int *targets) {
	__shared__ float tops[32];
	__shared__ double sums[32];
	const float *p = logits + (long long)blockIdx.x * n;
	float top = __uint_as_float(0xff800000u);
	for (int v = threadIdx.x; v < n; v += blockDim.x)
		top = p[v] > top ? p[v] : top;
	top = block_max(top, tops);
	double sum = 0;
	for (int v = threadIdx.x; v < n; v += blockDim.x)
		sum += (double)expf(p[v] - top);
	sum = block_sum(sum, sums);
	if (threadIdx.x == 0) {
		int i = targets[blockIdx.x] - first;
		dst[blockIdx.x].largest = top;
		dst[blockIdx.x].sum = sum;
		dst[blockIdx.x].target = i >= 0 && i < n ? p[i] : 0;
	}
}

__device__ __forceinline__ float element(const void *x, long long i, int type) {
	if (type == 0)
		return ((const float *)x)[i];
	unsigned short v = ((const unsigned short *)x)[i];
	return type == 2 ? widen_f16(v) : widen(v);
}

// multiply writes d[r][j] = Σ_i x[r][i] · w[j][i] for shapes that cuBLASLt does not take:
// element (r, i) of x lies at r·xr + i·xi, (j, i) of w at j·wj + i·wi, (r, j) of d at
// r·ldd + j. Types are 0 float32, 1 bfloat16, 2 float16. A block is 16 × 16 elements.
extern "C" __global__ void multiply(float *d, int ldd, const void *x, int x_type, int xr, int xi, const void *w, int w_type, int wj, int wi, int rows, int n, int k) {
	__shared__ float a[16][17], b[16][17];
	int tx = threadIdx.x % 16, ty = threadIdx.x / 16;
	int r0 = blockIdx.y * 16, j0 = blockIdx.x * 16;
	float sum = 0;
	for (int i0 = 0; i0 < k; i0 += 16) {
		int i = i0 + tx;
		a[ty][tx] = r0 + ty < rows && i < k ? element(x, (long long)(r0 + ty) * xr + (long long)i * xi, x_type) : 0;
		b[ty][tx] = j0 + ty < n && i < k ? element(w, (long long)(j0 + ty) * wj + (long long)i * wi, w_type) : 0;
		__syncthreads();
		for (int i = 0; i < 16; i++)
			sum += a[ty][i] * b[tx][i];
		__syncthreads();
	}
	if (r0 + ty < rows && j0 + tx < n)
		d[(long long)(r0 + ty) * ldd + j0 + tx] = sum;
}
