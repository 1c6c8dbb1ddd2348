// Statistics of an input, tokens × cols in float32: sums over the tokens of a sequence in
// float64, added to those of the sequences before.
#include "device.cuh"

// A block of 32 × 32 threads sums 32 columns, each warp the rows ty, ty + 32, ...
// column_sum adds up what the warps have of a column; valid in the threads of ty 0.
__device__ __forceinline__ double column_sum(double v, double shared[32][33]) {
	int tx = threadIdx.x % 32, ty = threadIdx.x / 32;
	__syncthreads();
	shared[ty][tx] = v;
	__syncthreads();
	double sum = 0;
	if (ty == 0)
		for (int i = 0; i < 32; i++)
			sum += shared[i][tx];
	return sum;
}

// column_squares adds Σ_t x_tj² to sum_j.
extern "C" __global__ void column_squares(double *sum, const float *x, int rows, int cols) {
	__shared__ double shared[32][33];
	int tx = threadIdx.x % 32, ty = threadIdx.x / 32, j = blockIdx.x * 32 + tx;
	double s = 0;
	if (j < cols)
		for (int t = ty; t < rows; t += 32) {
			double v = x[(long long)t * cols + j];
			s += v * v;
		}
	s = column_sum(s, shared);
	if (ty == 0 && j < cols)
		sum[j] += s;
}

// column_moments adds Σ_t x_tj to sum_j and Σ_t (x_tj − mean_j)² to squares_j, the mean
// being that of these rows.
extern "C" __global__ void column_moments(double *sum, double *squares, const float *x, int rows, int cols) {
	__shared__ double shared[32][33];
	__shared__ double means[32];
	int tx = threadIdx.x % 32, ty = threadIdx.x / 32, j = blockIdx.x * 32 + tx;
	double s = 0;
	if (j < cols)
		for (int t = ty; t < rows; t += 32)
			s += x[(long long)t * cols + j];
	s = column_sum(s, shared);
	if (ty == 0) {
		means[tx] = s / rows;
		if (j < cols)
			sum[j] += s;
	}
	__syncthreads();
	double mean = means[tx], q = 0;
	if (j < cols)
		for (int t = ty; t < rows; t += 32) {
			double d = x[(long long)t * cols + j] - mean;
			q += d * d;
		}
	q = column_sum(q, shared);
	if (ty == 0 && j < cols)
		squares[j] += q;
}

// weigh_rows writes by[t] · x_tj, or x_tj without by, as float32 or, if rounded, bfloat16.
extern "C" __global__ void weigh_rows(void *dst, const float *x, const double *by, int cols, long long n, int rounded) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	float v = x[i];
	if (by)
		v = (float)(by[i / cols] * v);
	if (rounded)
		((bf16 *)dst)[i] = round_bf16(v);
	else
		((float *)dst)[i] = v;
}

// add_panels adds the upper half of products, n × n, to panels of 256 columns each: panel
// p holds rows 0 to its last column's of columns 256·p and on, row after row.
extern "C" __global__ void add_panels(double *panels, const float *products, int n) {
	const int width = 256;
	int p = blockIdx.y, i = blockIdx.x, j = p * width + threadIdx.x;
	int end = min((p + 1) * width, n);
	if (i >= end || j >= n)
		return;
	// Panels before p are whole: panel q has 256·(q+1) rows of 256.
	long long before = (long long)width * width * p * (p + 1) / 2;
	panels[before + (long long)i * (end - p * width) + threadIdx.x] += products[(long long)i * n + j];
}

// add_products adds n products to sums.
extern "C" __global__ void add_products(double *sum, const float *products, long long n) {
	long long i = (long long)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		sum[i] += products[i];
}
