// libcublasLt.so.12: matrix products by their definition,
//
//	D = alpha · op(A) · op(B) + beta · C,  op(A) m × k, op(B) k × n,
//
// in columns as cuBLAS stores them, for the types and settings that engine/cuda asks
// for. Products of bfloat16, float16 and float32 are summed in float32, of float64 in
// float64. Enumerations and sizes are cublasLt.h's.

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <dlfcn.h>
#include <memory>
#include <signal.h>
#include <thread>
#include <vector>

#define API extern "C" __attribute__((visibility("default"))) int

enum { SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15 };
enum { F32 = 0, F64 = 1, F16 = 2, BF16 = 14 };
enum { COMPUTE_32F = 68, COMPUTE_32F_PEDANTIC = 69, COMPUTE_64F = 70, COMPUTE_32F_FAST_TF32 = 77 };
enum { N = 0, T = 1, C = 2 };

struct Product { // cublasLtMatmulDesc_t
	int compute, scale, transposed[2] = {N, N}, device_scalars = 0, epilogue = 1;
};
struct Layout { // cublasLtMatrixLayout_t
	int type;
	uint64_t rows, cols;
	int64_t ld;
	int order = 0, batch = 1;
	int64_t stride = 0;
};
struct Preference { uint64_t workspace = 0; };
struct Algorithm { uint64_t mark, workspace, rest[6]; };
struct Heuristic { Algorithm algorithm; size_t workspace; int state; float waves; int reserved[4]; };
static_assert(sizeof(Heuristic) == 96, "cublasLtMatmulHeuristicResult_t of cublasLt.h");

static const uint64_t mark = 0x6570657263; // of an algorithm that the heuristic chose
static const size_t workspace_wanted = 64 << 10;

template <class V> static int set(V &to, const void *from, size_t size) {
	if (!from || size != sizeof to)
		return INVALID_VALUE;
	memcpy(&to, from, size);
	return SUCCESS;
}

static int handle;

API cublasLtCreate(void **h) {
	*h = &handle;
	return SUCCESS;
}
API cublasLtDestroy(void *h) { return h == &handle ? SUCCESS : NOT_INITIALIZED; }
extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 120400; }
extern "C" __attribute__((visibility("default"))) const char *cublasLtGetStatusString(int s) {
	switch (s) {
	case SUCCESS: return "success";
	case NOT_INITIALIZED: return "not initialized";
	case INVALID_VALUE: return "invalid value";
	case EXECUTION_FAILED: return "execution failed";
	case NOT_SUPPORTED: return "not supported";
	}
	return "unknown";
}

API cublasLtMatmulDescCreate(Product **p, int compute, int scale) {
	*p = new Product{compute, scale};
	return SUCCESS;
}
API cublasLtMatmulDescDestroy(Product *p) {
	delete p;
	return SUCCESS;
}
API cublasLtMatmulDescSetAttribute(Product *p, int attribute, const void *v, size_t size) {
	switch (attribute) {
	case 0: return set(p->compute, v, size);
	case 1: return set(p->scale, v, size);
	case 2: return set(p->device_scalars, v, size);
	case 3: case 4: return set(p->transposed[attribute - 3], v, size);
	case 7: return set(p->epilogue, v, size);
	}
	return INVALID_VALUE;
}

API cublasLtMatrixLayoutCreate(Layout **l, int type, uint64_t rows, uint64_t cols, int64_t ld) {
	*l = new Layout{type, rows, cols, ld};
	return SUCCESS;
}
API cublasLtMatrixLayoutDestroy(Layout *l) {
	delete l;
	return SUCCESS;
}
API cublasLtMatrixLayoutSetAttribute(Layout *l, int attribute, const void *v, size_t size) {
	switch (attribute) {
	case 0: return set(l->type, v, size);
	case 1: return set(l->order, v, size);
	case 2: return set(l->rows, v, size);
	case 3: return set(l->cols, v, size);
	case 4: return set(l->ld, v, size);
	case 5: return set(l->batch, v, size);
	case 6: return set(l->stride, v, size);
	}
	return INVALID_VALUE;
}

API cublasLtMatmulPreferenceCreate(Preference **p) {
	*p = new Preference;
	return SUCCESS;
}
API cublasLtMatmulPreferenceDestroy(Preference *p) {
	delete p;
	return SUCCESS;
}
API cublasLtMatmulPreferenceSetAttribute(Preference *p, int attribute, const void *v, size_t size) {
	if (attribute == 1)
		return set(p->workspace, v, size);
	if ((attribute == 3 || (attribute >= 5 && attribute <= 8)) && size == 4) // reduction schemes, alignments
		return SUCCESS;
	return INVALID_VALUE;
}

// check tells whether cuBLAS has the product.
static int check(const Product &p, const Layout &a, const Layout &b, const Layout &c, const Layout &d) {
	uint64_t m = p.transposed[0] ? a.cols : a.rows, k = p.transposed[0] ? a.rows : a.cols;
	uint64_t n = p.transposed[1] ? b.rows : b.cols;
	if (m != d.rows || n != d.cols || k != (p.transposed[1] ? b.cols : b.rows) || c.rows != m || c.cols != n || !m || !n || !k)
		return INVALID_VALUE;
	for (const Layout *l : {&a, &b, &c, &d}) {
		if (l->ld < (int64_t)l->rows || l->batch != d.batch)
			return INVALID_VALUE;
		if (l->order != 0)
			return NOT_SUPPORTED;
	}
	if (p.epilogue != 1 || a.type != b.type || c.type != d.type)
		return NOT_SUPPORTED;
	bool single = p.compute == COMPUTE_32F || p.compute == COMPUTE_32F_PEDANTIC || p.compute == COMPUTE_32F_FAST_TF32;
	if (a.type == F64)
		return p.compute == COMPUTE_64F && p.scale == F64 && d.type == F64 ? SUCCESS : NOT_SUPPORTED;
	if (a.type != F32 && a.type != F16 && a.type != BF16)
		return NOT_SUPPORTED;
	if (p.compute == COMPUTE_32F_FAST_TF32 && a.type != F32)
		return NOT_SUPPORTED;
	return single && p.scale == F32 && (d.type == F32 || d.type == a.type) ? SUCCESS : NOT_SUPPORTED;
}

API cublasLtMatmulAlgoGetHeuristic(void *h, Product *p, Layout *a, Layout *b, Layout *c, Layout *d, Preference *preference, int wanted, Heuristic *results, int *count) {
	if (h != &handle)
		return NOT_INITIALIZED;
	if (!p || !a || !b || !c || !d || !preference || wanted < 1)
		return INVALID_VALUE;
	*count = 0;
	int code = check(*p, *a, *b, *c, *d);
	if (code)
		return code;
	*results = {};
	results->workspace = std::min<uint64_t>(preference->workspace, workspace_wanted);
	results->algorithm.mark = mark;
	results->algorithm.workspace = results->workspace;
	results->waves = 1;
	*count = 1;
	return SUCCESS;
}

API cublasLtMatmulAlgoCheck(void *h, Product *p, Layout *a, Layout *b, Layout *c, Layout *d, const void *algorithm, Heuristic *result) {
	if (h != &handle)
		return NOT_INITIALIZED;
	if (!p || !a || !b || !c || !d || !algorithm || !result)
		return INVALID_VALUE;
	return check(*p, *a, *b, *c, *d);
}

// Elements.

static float of_bits(uint32_t b) { float f; memcpy(&f, &b, 4); return f; }
static uint32_t to_bits(float f) { uint32_t b; memcpy(&b, &f, 4); return b; }

template <int type> struct Element;
template <> struct Element<F32> { typedef float stored, sum; static float get(float v) { return v; } static float put(float v) { return v; } };
template <> struct Element<F64> { typedef double stored, sum; static double get(double v) { return v; } static double put(double v) { return v; } };
template <> struct Element<F16> { typedef _Float16 stored; typedef float sum; static float get(_Float16 v) { return v; } static _Float16 put(float v) { return (_Float16)v; } };
template <> struct Element<BF16> {
	typedef uint16_t stored;
	typedef float sum;
	static float get(uint16_t v) { return of_bits((uint32_t)v << 16); }
	static uint16_t put(float v) { uint32_t b = to_bits(v); return v != v ? 0x7fff : (b + 0x7fff + (b >> 16 & 1)) >> 16; }
};
// TF32: float32 rounded to 10 bits behind the point, ties away from zero.
struct Tf32 { typedef float stored, sum; static float get(float v) { return of_bits((to_bits(v) + 0x1000) & ~0x1fffu); } };

// multiply computes rows [m0, m1) and columns [n0, n1) of D. Panels of 2 vectors of
// rows and 8 columns, k in blocks whose panels stay in cache; the block's sums are
// added to the total.
template <class In, class Out> struct Multiply {
	typedef typename In::sum S;
	typedef S V __attribute__((vector_size(64)));
	static const int lanes = 64 / sizeof(S), MR = 2 * lanes, NR = 8, KC = 256;
	const typename In::stored *a, *b;
	const typename Out::stored *c;
	typename Out::stored *d;
	int64_t ars, acs, brs, bcs, ldc, ldd, k; // strides of rows and columns
	S alpha, beta;

	void operator()(int64_t m0, int64_t m1, int64_t n0, int64_t n1) const {
		const int NC = 256;
		for (int64_t n = n0; n < n1; n += NC)
			columns(m0, m1, n, std::min(n1, n + NC));
	}

	void columns(int64_t m0, int64_t m1, int64_t n0, int64_t n1) const {
		int64_t rows = (m1 - m0 + MR - 1) / MR * MR, panels = (n1 - n0 + NR - 1) / NR;
		std::vector<S> total(rows * panels * NR), left(MR * KC + lanes), right(KC * panels * NR);
		S *ap = (S *)(((uintptr_t)left.data() + 63) / 64 * 64);
		for (int64_t k0 = 0; k0 < k; k0 += KC) {
			int64_t kc = std::min<int64_t>(KC, k - k0);
			for (int64_t j = 0; j < panels * NR; j++)
				pack(&right[j / NR * KC * NR + j % NR], NR, b + k0 * brs + (n0 + j) * bcs, brs, n0 + j < n1 ? kc : 0, kc);
			for (int64_t i0 = 0; i0 < rows; i0 += MR) {
				for (int64_t i = 0; i < MR; i++)
					pack(ap + i, MR, a + (m0 + i0 + i) * ars + k0 * acs, acs, m0 + i0 + i < m1 ? kc : 0, kc);
				for (int64_t p = 0; p < panels; p++)
					panel(ap, &right[p * KC * NR], kc, &total[p * NR * rows + i0], rows);
			}
		}
		for (int64_t j = n0; j < n1; j++)
			for (int64_t i = m0; i < m1; i++) {
				S v = alpha * total[(j - n0) * rows + i - m0];
				if (beta != 0)
					v += beta * Out::get(c[i + j * ldc]);
				d[i + j * ldd] = Out::put(v);
			}
	}

	// pack writes n elements, every step of to, and zeros up to kc.
	static void pack(S *to, int step, const typename In::stored *from, int64_t stride, int64_t n, int64_t kc) {
		for (int64_t x = 0; x < n; x++)
			to[x * step] = In::get(from[x * stride]);
		for (int64_t x = n; x < kc; x++)
			to[x * step] = 0;
	}

	static void panel(const S *ap, const S *bp, int64_t kc, S *to, int64_t ld) {
		V sum[NR][2] = {};
		for (int64_t x = 0; x < kc; x++) {
			V l = *(const V *)(ap + x * MR), h = *(const V *)(ap + x * MR + lanes);
#pragma GCC unroll 8
			for (int j = 0; j < NR; j++) {
				sum[j][0] += l * bp[x * NR + j];
				sum[j][1] += h * bp[x * NR + j];
			}
		}
		for (int j = 0; j < NR; j++)
			for (int i = 0; i < MR; i++)
				to[j * ld + i] += sum[j][i / lanes][i % lanes];
	}
};

struct Call {
	Product p;
	Layout a, b, c, d;
	const void *A, *B, *C;
	void *D, *workspace;
	size_t workspace_used;
	const void *alpha, *beta;
	double scalars[2];
};

template <class In, class Out> static void multiply(const Call &x) {
	typedef typename In::sum S;
	S alpha = *(S *)x.alpha, beta = *(S *)x.beta;
	int64_t m = x.d.rows, n = x.d.cols;
	Multiply<In, Out> f{nullptr, nullptr, nullptr, nullptr, 1, x.a.ld, 1, x.b.ld, x.c.ld, x.d.ld, (int64_t)(x.p.transposed[0] ? x.a.rows : x.a.cols), alpha, beta};
	if (x.p.transposed[0])
		std::swap(f.ars, f.acs);
	if (x.p.transposed[1])
		std::swap(f.brs, f.bcs);
	for (int i = 0; i < x.d.batch; i++) {
		f.a = (const typename In::stored *)x.A + i * x.a.stride;
		f.b = (const typename In::stored *)x.B + i * x.b.stride;
		f.c = (const typename Out::stored *)x.C + i * x.c.stride;
		f.d = (typename Out::stored *)x.D + i * x.d.stride;
		if (std::thread::hardware_concurrency() < 2 || (double)m * n * f.k < 4e6) {
			f(0, m, 0, n);
			continue;
		}
		int64_t mm = m, nn = n;
		(m > n ? mm : nn) = (m > n ? m : n) / 2;
		sigset_t all, old; // signals are for the caller's threads
		sigfillset(&all);
		pthread_sigmask(SIG_SETMASK, &all, &old);
		std::thread half([&] { f(0, mm, 0, nn); });
		pthread_sigmask(SIG_SETMASK, &old, nullptr);
		m > n ? f(mm, m, 0, n) : f(0, m, nn, n);
		half.join();
	}
}

static void run(void *call) {
	std::unique_ptr<Call> x((Call *)call);
	if (x->workspace_used)
		memset(x->workspace, 0xff, x->workspace_used);
	int in = x->a.type, out = x->d.type;
	if (in == F64)
		multiply<Element<F64>, Element<F64>>(*x);
	else if (in == F32 && x->p.compute == COMPUTE_32F_FAST_TF32)
		multiply<Tf32, Element<F32>>(*x);
	else if (in == F32)
		multiply<Element<F32>, Element<F32>>(*x);
	else if (in == F16)
		out == F32 ? multiply<Element<F16>, Element<F32>>(*x) : multiply<Element<F16>, Element<F16>>(*x);
	else
		out == F32 ? multiply<Element<BF16>, Element<F32>>(*x) : multiply<Element<BF16>, Element<BF16>>(*x);
}

API cublasLtMatmul(void *h, Product *p, const void *alpha, const void *A, Layout *a, const void *B, Layout *b, const void *beta, const void *C, Layout *c, void *D, Layout *d, const Algorithm *algorithm, void *workspace, size_t workspace_size, void *stream) {
	if (h != &handle)
		return NOT_INITIALIZED;
	if (!p || !a || !b || !c || !d || !alpha || !beta || !A || !B || !D)
		return INVALID_VALUE;
	if (int code = check(*p, *a, *b, *c, *d))
		return code;
	size_t need = 0;
	if (algorithm) {
		need = algorithm->workspace;
		if (algorithm->mark != mark || need > workspace_size || (need && !workspace))
			return INVALID_VALUE;
	}
	auto *x = new Call{*p, *a, *b, *c, *d, A, B, C, D, workspace, need, alpha, beta, {}};
	if (!p->device_scalars) { // else they are read when the product runs
		size_t size = p->scale == F64 ? 8 : 4;
		memcpy(&x->scalars[0], alpha, size);
		memcpy(&x->scalars[1], beta, size);
		x->alpha = &x->scalars[0];
		x->beta = &x->scalars[1];
	}
	static void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
	static auto post = (int (*)(void *, void (*)(void *), void *))(driver ? dlsym(driver, "emulator_post") : nullptr);
	static auto inside = (int (*)(const char *, const void *, size_t))(driver ? dlsym(driver, "emulator_check") : nullptr);
	if (!post || !inside) {
		fprintf(stderr, "emulator: cublasLtMatmul: the emulator's libcuda.so.1 is not loaded\n");
		return EXECUTION_FAILED;
	}
	auto bytes = [](const Layout &l) {
		size_t element = l.type == F64 ? 8 : l.type == F32 ? 4 : 2;
		return element * ((l.batch - 1) * l.stride + (l.cols - 1) * l.ld + l.rows);
	};
	if (inside("cublasLtMatmul: A", A, bytes(*a)) || inside("cublasLtMatmul: B", B, bytes(*b)) || inside("cublasLtMatmul: D", D, bytes(*d)) || (C && inside("cublasLtMatmul: C", C, bytes(*c))) || inside("cublasLtMatmul: workspace", workspace, need))
		return INVALID_VALUE;
	return post(stream, run, x) ? EXECUTION_FAILED : SUCCESS;
}
