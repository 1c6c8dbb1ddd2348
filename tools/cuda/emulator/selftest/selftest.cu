// Kernels that selftest.py runs on the emulator: right ones against plain loops, and
// wrong ones whose fault it must see.

extern __shared__ unsigned char dynamic_shared[];

// out gets, for each thread, 6 exchanges of its warp.
extern "C" __global__ void exchanges(unsigned *out, const unsigned *in, int n) {
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	unsigned v = in[i];
	out[0 * n + i] = __shfl_xor_sync(0xffffffffu, v, 5);
	out[1 * n + i] = __shfl_up_sync(0xffffffffu, v, 3);
	out[2 * n + i] = __shfl_down_sync(0xffffffffu, v, 7);
	out[3 * n + i] = __shfl_sync(0xffffffffu, v, (int)(v % 32));
	out[4 * n + i] = __ballot_sync(0xffffffffu, v & 1);
	double d = v;
	for (int o = 16; o > 0; o >>= 1)
		d += __shfl_xor_sync(0xffffffffu, d, o);
	out[5 * n + i] = (unsigned)d;
}

// to[j, i] = from[i, j], n × n.
extern "C" __global__ void __launch_bounds__(256, 2) transpose(float *to, const float *from, int n) {
	__shared__ float tile[16][17];
	int x = threadIdx.x, y = threadIdx.y;
	tile[y][x] = from[(blockIdx.y * 16 + y) * n + blockIdx.x * 16 + x];
	__syncthreads();
	to[(blockIdx.x * 16 + y) * n + blockIdx.y * 16 + x] = tile[x][y];
}

// counts[v] = how often v is in values; first each block's own in shared memory.
extern "C" __global__ void histogram(unsigned *counts, unsigned *largest, const unsigned char *values, int n) {
	unsigned *own = (unsigned *)dynamic_shared;
	for (int i = threadIdx.x; i < 256; i += blockDim.x)
		own[i] = 0;
	__syncthreads();
	for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
		atomicAdd(&own[values[i]], 1u);
	__syncthreads();
	for (int i = threadIdx.x; i < 256; i += blockDim.x)
		if (own[i]) {
			atomicAdd(&counts[i], own[i]);
			atomicMax(largest, (unsigned)i);
		}
}

// d[16, 8] = a[16, 16] · b[16, 8] by one warp: each element of a fragment is read where
// the PTX ISA's formulas say, word for word.
extern "C" __global__ void fragments(float *d, const unsigned short *a, const unsigned short *b) {
	int groupID = threadIdx.x >> 2, threadID_in_group = threadIdx.x % 4;
	unsigned short ai[8], bi[4];
	for (int i = 0; i < 8; i++) {
		int row = (0 <= i && i < 2) || (4 <= i && i < 6) ? groupID : groupID + 8;
		int col = i < 4 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8;
		ai[i] = a[row * 16 + col];
	}
	for (int i = 0; i < 4; i++) {
		int row = i < 2 ? threadID_in_group * 2 + (i & 1) : threadID_in_group * 2 + (i & 1) + 8;
		bi[i] = b[row * 8 + groupID];
	}
	unsigned ra[4], rb[2];
	for (int i = 0; i < 4; i++)
		ra[i] = ai[2 * i] | (unsigned)ai[2 * i + 1] << 16;
	for (int i = 0; i < 2; i++)
		rb[i] = bi[2 * i] | (unsigned)bi[2 * i + 1] << 16;
	float c[4] = {};
	mma(c, ra, rb);
	for (int i = 0; i < 4; i++) {
		int row = i < 2 ? groupID : groupID + 8;
		d[row * 8 + threadID_in_group * 2 + (i & 1)] = c[i];
	}
}

// c[m, n] = a[m, k] · b, which is n × k, or k × n where columns is not 0: 32 × 32 of c
// a block of 4 warps, 16 × 16 each; tiles by asynchronous copies, one ahead; whole
// tiles of rows, and of k all but the last, which is filled with zeros.
extern "C" __global__ void product(float *c, const unsigned short *a, const unsigned short *b, int n, int k, int columns) {
	unsigned short(*sa)[32][40] = (unsigned short(*)[32][40])dynamic_shared, (*sb)[32][40] = sa + 2;
	int m0 = blockIdx.y * 32, n0 = blockIdx.x * 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
	int row = threadIdx.x / 4, col = threadIdx.x % 4 * 8;
	auto fetch = [&](int k0, int to) {
		copy_async(&sa[to][row][col], a + (m0 + row) * k + (k0 + col < k ? k0 + col : 0), k0 + col < k);
		if (columns)
			copy_async(&sb[to][row][col], b + (k0 + row < k ? k0 + row : 0) * n + n0 + col, k0 + row < k);
		else
			copy_async(&sb[to][row][col], b + (n0 + row) * k + (k0 + col < k ? k0 + col : 0), k0 + col < k);
		copies_commit();
	};
	float sum[2][4] = {};
	fetch(0, 0);
	for (int k0 = 0, now = 0; k0 < k; k0 += 32, now ^= 1) {
		if (k0 + 32 < k) {
			fetch(k0 + 32, now ^ 1);
			copies_wait<1>();
		} else {
			copies_wait<0>();
		}
		__syncthreads();
		for (int kk = 0; kk < 32; kk += 16) {
			unsigned fa[4], fb[4];
			load_matrices(fa, &sa[now][warp / 2 * 16 + lane % 16][kk + lane / 16 * 8]);
			if (columns)
				load_matrices_transposed(fb, &sb[now][kk + lane % 16][warp % 2 * 16 + lane / 16 * 8]);
			else
				load_matrices(fb, &sb[now][warp % 2 * 16 + lane / 16 * 8 + lane % 8][kk + lane / 8 % 2 * 8]);
			mma(sum[0], fa, fb);
			mma(sum[1], fa, fb + 2);
		}
		__syncthreads();
	}
	for (int t = 0; t < 2; t++)
		for (int i = 0; i < 4; i++)
			c[(m0 + warp / 2 * 16 + lane / 4 + i / 2 * 8) * n + n0 + warp % 2 * 16 + t * 8 + lane % 4 * 2 + i % 2] = sum[t][i];
}

// y = a·x + y, once rounded after each operation and once as the compiler likes.
extern "C" __global__ void rounding(float *once, float *contracted, const float *x, const float *y, float a, int n) {
	int i = blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	once[i] = __fadd_rn(__fmul_rn(a, x[i]), y[i]);
	contracted[i] = a * x[i] + y[i];
}

// No barrier: how many blocks a second.
extern "C" __global__ void scale(float *x, float a) {
	x[blockIdx.x * blockDim.x + threadIdx.x] *= a;
}

// A sum of a warp, 5 exchanges and one barrier a thread.
extern "C" __global__ void sums(float *out, const float *x) {
	__shared__ float part[32];
	float v = x[threadIdx.x];
	for (int o = 16; o > 0; o >>= 1)
		v += __shfl_xor_sync(0xffffffffu, v, o);
	if (threadIdx.x % 32 == 0)
		part[threadIdx.x / 32] = v;
	__syncthreads();
	if (threadIdx.x == 0) {
		v = 0;
		for (int i = 0; i < (int)blockDim.x / 32; i++)
			v += part[i];
		out[blockIdx.x] = v;
	}
}

// Wrong ones.

extern "C" __global__ void wrong_behind(float *out, const float *in, int n) { out[threadIdx.x] = in[n + threadIdx.x]; }
extern "C" __global__ void wrong_before(float *out, const float *in, int n) { out[threadIdx.x] = in[(int)threadIdx.x - n]; }

extern "C" __global__ void wrong_barrier(float *out) {
	if (threadIdx.x < 40)
		__syncthreads();
	else
		__syncthreads();
	out[threadIdx.x] = 1;
}

extern "C" __global__ void wrong_exit(float *out) {
	if (threadIdx.x == 63)
		return;
	__syncthreads();
	out[threadIdx.x] = 1;
}

extern "C" __global__ void wrong_exchange(float *out) {
	float v = 1;
	if (threadIdx.x < 16)
		v = __shfl_xor_sync(0xffffffffu, v, 1);
	out[threadIdx.x] = v;
}

extern "C" __global__ void wrong_alignment(float *out, const float *in) {
	float4 v = *(const float4 *)(in + threadIdx.x);
	out[threadIdx.x] = v.x + v.w;
}

extern "C" __global__ void wrong_bounds(float *out, int n) {
	__shared__ float part[64];
	part[threadIdx.x + n] = 1;
	out[threadIdx.x] = part[threadIdx.x];
}

extern "C" __global__ void wrong_dynamic(float *out, int n) {
	((float *)dynamic_shared)[threadIdx.x + n] = 1;
	out[threadIdx.x] = ((float *)dynamic_shared)[threadIdx.x];
}

extern "C" __global__ void wrong_local(float *out, int n) {
	volatile float big[32768];
	for (int i = 0; i < n; i++)
		big[i] = i;
	out[threadIdx.x] = big[n / 2];
}

// Without the barrier between the two a thread may read what is not yet written.
extern "C" __global__ void wrong_race(float *out) {
	__shared__ float part[256];
	part[threadIdx.x] = threadIdx.x;
	out[threadIdx.x] = part[(threadIdx.x + 128) % 256];
}

// Without copies_wait the copy need not have come.
extern "C" __global__ void wrong_wait(float *out, const float *in) {
	copy_async(dynamic_shared + 16 * threadIdx.x, in + 4 * threadIdx.x, true);
	copies_commit();
	__syncthreads();
	out[threadIdx.x] = ((float *)dynamic_shared)[threadIdx.x];
}
