// Selection by scores as package mask does it: exact counts, and of equal scores the
// lower index is pruned first. A score is its bits, a key: scores are not negative, so
// that keys order as they do. A mask has a bit a weight, set where it is kept: bit j%32
// of word j/32 of a row, whose words are even in number; unused bits are 0.
#include "score.cuh"

namespace selection {

using score::Four;
typedef score::Vector<unsigned, 4> Keys;

// A key is found digit by digit, from the highest: 11 bits, 10 and 10. The sign is 0.
const int first_bits = 11, next_bits = 10;
const int first_bins = 1 << first_bits, next_bins = 1 << next_bits;
const int first_shift = 2 * next_bits;

const unsigned infinity = 0x7f800000;
const unsigned no_key = 0xffffffff; // past the last column: is never selected

const int max_warps = 32; // of a block

// What a block does with the scores of its rows.
enum Mode { keep_scores, select_rows, select_groups };

struct Shared {
	unsigned warp[max_warps];
	unsigned bin, below, count;
};

// find returns the bin that holds the k-th smallest of the keys that bins count, 1 ≤ k.
// below is how many are in the bins before, count how many in this one.
__device__ __forceinline__ unsigned find(const unsigned *bins, int n, unsigned k, unsigned &below, unsigned &count, Shared &shared) {
	int t = threadIdx.x, lane = t % 32, warp = t / 32, each = n / (int)blockDim.x;
	unsigned sum = 0;
	for (int q = 0; q < each; q++)
		sum += bins[t * each + q];
	unsigned upto = sum;
	for (int d = 1; d < 32; d *= 2) {
		unsigned v = __shfl_up_sync(all_lanes, upto, d);
		if (lane >= d)
			upto += v;
	}
	if (lane == 31)
		shared.warp[warp] = upto;
	__syncthreads();
	for (int v = 0; v < warp; v++)
		upto += shared.warp[v];
	unsigned before = upto - sum;
	if (before < k && k <= upto) {
		int q = t * each;
		while (before + bins[q] < k)
			before += bins[q++];
		shared.bin = q, shared.below = before, shared.count = bins[q];
	}
	__syncthreads();
	below = shared.below, count = shared.count;
	return shared.bin;
}

// Cut is where keys are cut: those below key are pruned, and the first ties of the equal
// ones that there are.
struct Cut { unsigned key, ties, equal; };

// cut_row finds the k-th smallest of a row's keys; bins is memory for first_bins counts.
__device__ __forceinline__ Cut cut_row(const unsigned *keys, int pitch, unsigned k, unsigned *bins, Shared &shared) {
	Cut c = {0, 0, 0};
	if (k == 0)
		return c;
	unsigned below, count, prefix = 0;
	for (int shift = first_shift; shift >= 0; shift -= next_bits) {
		int bits = shift == first_shift ? first_bits : next_bits, n = 1 << bits;
		for (int q = threadIdx.x; q < n; q += blockDim.x)
			bins[q] = 0;
		__syncthreads();
		for (int j = 4 * threadIdx.x; j < pitch; j += 4 * blockDim.x) {
			Keys x = *(const Keys *)(keys + j);
			for (int q = 0; q < 4; q++)
				if (x.v[q] >> (shift + bits) == prefix)
					atomicAdd(&bins[x.v[q] >> shift & (n - 1)], 1u);
		}
		__syncthreads();
		prefix = prefix << bits | find(bins, n, k, below, count, shared);
		k -= below;
	}
	c.key = prefix, c.ties = k, c.equal = count;
	return c;
}

// keep_row writes the mask of a row that is cut at c. Each warp has words of its own, one
// after the other.
__device__ __forceinline__ void keep_row(const unsigned *keys, int cols, int words, Cut c, unsigned *bits, Shared &shared) {
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32, n = blockDim.x / 32;
	int each = (words + n - 1) / n, lo = warp * each, hi = min(lo + each, words);
	unsigned rank = 0; // of the equal ones
	if (c.ties < c.equal) { // else all of them go
		unsigned equal = 0;
		for (int w = lo; w < hi; w++) {
			int j = 32 * w + lane;
			equal += __popc(__ballot_sync(all_lanes, j < cols && keys[j] == c.key));
		}
		if (lane == 0)
			shared.warp[warp] = equal;
		__syncthreads();
		for (int v = 0; v < warp; v++)
			rank += shared.warp[v];
	}
	unsigned mine = 0;
	for (int w = lo; w < hi; w++) {
		int j = 32 * w + lane;
		unsigned key = j < cols ? keys[j] : 0;
		unsigned equal = __ballot_sync(all_lanes, j < cols && key == c.key);
		bool first = rank + __popc(equal & ((1u << lane) - 1)) < c.ties;
		unsigned kept = __ballot_sync(all_lanes, j < cols && (key > c.key || (key == c.key && !first)));
		rank += __popc(equal);
		if ((w - lo) % 32 == lane)
			mine = kept;
		if ((w - lo) % 32 == 31 || w == hi - 1) {
			int at = w - (w - lo) % 32 + lane;
			if (at <= w)
				bits[at] = mine;
		}
	}
}

// keep_groups writes the mask of a row that keeps the keep highest of every of columns:
// position k is column order[k], without an order column k. With one, kept is shared
// memory for the words.
__device__ __forceinline__ void keep_groups(const unsigned *keys, int cols, int words, int keep, int of, const int *order, unsigned *kept, unsigned *bits) {
	int lane = threadIdx.x % 32;
	if (order) {
		for (int w = threadIdx.x; w < words; w += blockDim.x)
			kept[w] = 0;
		__syncthreads();
	}
	for (int w = threadIdx.x / 32; w < words; w += blockDim.x / 32) {
		int k = 32 * w + lane, rank = 0;
		if (k < cols) {
			int first = k - k % of;
			unsigned key = keys[order ? order[k] : k];
			for (int p = first; p < first + of; p++) {
				unsigned other = keys[order ? order[p] : p];
				rank += other < key || (other == key && p < k);
			}
		}
		bool stays = k < cols && rank >= of - keep;
		if (!order) {
			unsigned word = __ballot_sync(all_lanes, stays);
			if (lane == 0)
				bits[w] = word;
		} else if (stays)
			atomicOr(&kept[order[k] / 32], 1u << order[k] % 32);
	}
	if (order) {
		__syncthreads();
		for (int w = threadIdx.x; w < words; w += blockDim.x)
			bits[w] = kept[w];
	}
}

// Work is what the kernels of scores get beside the scores' terms.
struct Work {
	int mode, each; // each: rows of a block

	// Keys of the scores, rows of pitch keys: of all of them where mode is keep_scores,
	// else where they do not fit in shared memory; null: they do.
	unsigned *keys;

	unsigned *bins; // keep_scores: counts of the first digit of all keys are added

	const int *counts;    // [rows], select_rows: how many are pruned
	unsigned *cuts;       // [rows], select_rows: the highest key that is pruned, no_key if none is
	int keep, of;         // select_groups
	const int *order;     // [cols], select_groups: of the columns; null: as they are
	unsigned *bits;       // the mask
	int words;            // of a row of it
	unsigned *bad;        // is set if a score is infinite or NaN
};

// scores works on rows each·blockIdx and on. Shared memory, in this order: counts of a
// digit, unless groups are selected; sums of neighbours, if there are; the words of a
// row where there is an order; keys of each row.
template <bool near, class T>
__device__ __forceinline__ void scores(const score::Matrix<T> &p, int radius, const Work &work) {
	__shared__ Shared shared;
	int first = blockIdx.x * work.each, n = min(work.each, p.rows - first);
	unsigned *bins = (unsigned *)dynamic_shared;
	float *sums = (float *)(bins + (work.mode == select_groups ? 0 : first_bins));
	unsigned *kept = (unsigned *)(sums + (near ? score::sums_of() : 0));
	unsigned *keys = kept + (work.order ? (work.words + 3) / 4 * 4 : 0);
	if (work.keys)
		keys = work.keys + (size_t)first * p.pitch;

	if (work.mode == keep_scores)
		for (int q = threadIdx.x; q < first_bins; q += blockDim.x)
			bins[q] = 0;
	__syncthreads();
	bool bad = false;
	auto emit = [&](int r, int j, const Four &v) {
		Keys x;
		for (int k = 0; k < 4; k++) {
			x.v[k] = j + k < p.cols ? min(__float_as_uint(v.v[k]), infinity) : no_key;
			bad |= x.v[k] == infinity;
			if (work.mode == keep_scores && j + k < p.cols)
				atomicAdd(&bins[x.v[k] >> first_shift], 1u);
		}
		*(Keys *)(keys + (size_t)r * p.pitch + j) = x;
	};
	if constexpr (near)
		score::each_near(p, radius, first, n, sums, emit);
	else
		score::each(p, first, n, emit);
	if (bad)
		*work.bad = 1;
	__syncthreads();
	if (work.mode == keep_scores) {
		for (int q = threadIdx.x; q < first_bins; q += blockDim.x)
			if (bins[q])
				atomicAdd(&work.bins[q], bins[q]);
		return;
	}
	for (int r = 0; r < n; r++) {
		int i = first + r;
		const unsigned *row = keys + (size_t)r * p.pitch;
		unsigned *bits = work.bits + (size_t)i * work.words;
		if (work.mode == select_groups) {
			keep_groups(row, p.cols, work.words, work.keep, work.of, work.order, kept, bits);
		} else {
			int k = work.counts[i];
			Cut c = cut_row(row, p.pitch, k, bins, shared);
			if (threadIdx.x == 0)
				work.cuts[i] = k > 0 ? c.key : no_key;
			keep_row(row, p.cols, work.words, c, bits, shared);
		}
		__syncthreads();
	}
}

// State is what is known of the k-th smallest key of a whole matrix: its leading bits, k
// among those that have them, and how many these are.
struct State { unsigned prefix, k, count; };

} // namespace selection

// select_TYPE scores the weights of TYPE and selects by the scores, or keeps them for the
// kernels below; select_near_TYPE scores with γ's term, of a radius from 1 to 5. What the
// arguments are say score::Matrix and selection::Work.
#define SELECT_PARAMETERS int rows, int cols, int pitch, const float *a, const float *b, const float *s, float gamma, int radius, int mode, int each, \
	unsigned *keys, unsigned *bins, const int *counts, unsigned *cuts, int keep, int of, const int *order, unsigned *bits, int words, unsigned *bad
#define SELECT(TYPE, NEAR) \
	score::Matrix<score::TYPE> p = {w, rows, cols, pitch, a, b, s, gamma}; \
	selection::Work work = {mode, each, keys, bins, counts, cuts, keep, of, order, bits, words, bad}; \
	selection::scores<NEAR>(p, radius, work);

extern "C" __global__ void __launch_bounds__(1024, 2) select_bf16(const unsigned short *w, SELECT_PARAMETERS) { SELECT(BF16, false) }
extern "C" __global__ void __launch_bounds__(1024, 2) select_f16(const unsigned short *w, SELECT_PARAMETERS) { SELECT(F16, false) }
extern "C" __global__ void __launch_bounds__(1024, 2) select_f32(const unsigned *w, SELECT_PARAMETERS) { SELECT(F32, false) }
extern "C" __global__ void __launch_bounds__(512, 2) select_near_bf16(const unsigned short *w, SELECT_PARAMETERS) { SELECT(BF16, true) }
extern "C" __global__ void __launch_bounds__(512, 2) select_near_f16(const unsigned short *w, SELECT_PARAMETERS) { SELECT(F16, true) }
extern "C" __global__ void __launch_bounds__(512, 2) select_near_f32(const unsigned *w, SELECT_PARAMETERS) { SELECT(F32, true) }

// The k-th smallest of all keys of a matrix. keys are rows of pitch keys, a multiple of 4.

// select_digit finds the next digit by the n counts in bins. One block.
extern "C" __global__ void select_digit(unsigned *state, const unsigned *bins, int n) {
	__shared__ selection::Shared shared;
	selection::State *s = (selection::State *)state;
	unsigned below, count, digit = selection::find(bins, n, s->k, below, count, shared);
	if (threadIdx.x == 0) {
		s->prefix = n == selection::first_bins ? digit : s->prefix << selection::next_bits | digit;
		s->k -= below, s->count = count;
	}
}

// select_count adds to bins the counts of the digit at shift, of the n keys that have the
// bits before it that are known.
extern "C" __global__ void select_count(const unsigned *keys, size_t n, const unsigned *state, int shift, unsigned *bins) {
	__shared__ unsigned mine[selection::next_bins];
	for (int q = threadIdx.x; q < selection::next_bins; q += blockDim.x)
		mine[q] = 0;
	__syncthreads();
	unsigned prefix = ((const selection::State *)state)->prefix;
	for (size_t j = 4 * ((size_t)blockIdx.x * blockDim.x + threadIdx.x); j < n; j += 4 * (size_t)gridDim.x * blockDim.x) {
		selection::Keys x = *(const selection::Keys *)(keys + j);
		for (int q = 0; q < 4; q++)
			if (x.v[q] >> (shift + selection::next_bits) == prefix)
				atomicAdd(&mine[x.v[q] >> shift & (selection::next_bins - 1)], 1u);
	}
	__syncthreads();
	for (int q = threadIdx.x; q < selection::next_bins; q += blockDim.x)
		if (mine[q])
			atomicAdd(&bins[q], mine[q]);
}

// select_above writes the mask of what is above the cut, and, unless all that equals it is
// pruned, in ties what equals it, with its number in each row in equal. A block has a row.
extern "C" __global__ void select_above(const unsigned *keys, int cols, int pitch, const unsigned *state, unsigned *bits, unsigned *ties, unsigned *equal, int words) {
	__shared__ unsigned sum;
	const selection::State s = *(const selection::State *)state;
	bool some = s.k < s.count;
	int lane = threadIdx.x % 32;
	if (threadIdx.x == 0)
		sum = 0;
	__syncthreads();
	const unsigned *row = keys + (size_t)blockIdx.x * pitch;
	size_t at = (size_t)blockIdx.x * words;
	for (int w = threadIdx.x / 32; w < words; w += blockDim.x / 32) {
		int j = 32 * w + lane;
		unsigned key = j < cols ? row[j] : 0;
		unsigned above = __ballot_sync(all_lanes, j < cols && key > s.prefix);
		unsigned same = __ballot_sync(all_lanes, j < cols && key == s.prefix);
		if (lane == 0) {
			bits[at + w] = above;
			if (some) {
				ties[at + w] = same;
				if (same)
					atomicAdd(&sum, (unsigned)__popc(same));
			}
		}
	}
	__syncthreads();
	if (some && threadIdx.x == 0)
		equal[blockIdx.x] = sum;
}

// select_ranks replaces the numbers in equal by the sums of those before. One block, of
// whole warps.
extern "C" __global__ void select_ranks(const unsigned *state, unsigned *equal, int rows) {
	__shared__ unsigned sums[32];
	const selection::State *s = (const selection::State *)state;
	if (s->k == s->count)
		return;
	int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
	unsigned before = 0;
	for (int lo = 0; lo < rows; lo += blockDim.x) {
		int i = lo + threadIdx.x;
		unsigned own = i < rows ? equal[i] : 0, upto = own;
		for (int d = 1; d < 32; d *= 2) {
			unsigned v = __shfl_up_sync(all_lanes, upto, d);
			if (lane >= d)
				upto += v;
		}
		if (lane == 31)
			sums[warp] = upto;
		__syncthreads();
		unsigned all = 0;
		for (int v = 0; v < (int)blockDim.x / 32; v++) {
			if (v < warp)
				upto += sums[v];
			all += sums[v];
		}
		if (i < rows)
			equal[i] = before + upto - own;
		before += all;
		__syncthreads();
	}
}

// select_ties adds to the mask what equals the cut, but for the first k of it. A warp has
// a row.
extern "C" __global__ void select_ties(const unsigned *state, const unsigned *ties, const unsigned *equal, int rows, int words, unsigned *bits) {
	const selection::State *s = (const selection::State *)state;
	int lane = threadIdx.x % 32, i = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
	if (s->k == s->count || i >= rows)
		return;
	unsigned rank = equal[i];
	size_t at = (size_t)i * words;
	for (int lo = 0; lo < words; lo += 32) {
		int w = lo + lane;
		unsigned kept = w < words ? ties[at + w] : 0, own = __popc(kept), upto = own;
		for (int d = 1; d < 32; d *= 2) {
			unsigned v = __shfl_up_sync(all_lanes, upto, d);
			if (lane >= d)
				upto += v;
		}
		unsigned before = rank + upto - own;
		for (; kept && before < s->k; before++)
			kept &= kept - 1;
		if (kept)
			bits[at + w] |= kept;
		rank += __shfl_sync(all_lanes, upto, 31);
	}
}

namespace selection {

// apply sets to +0 the weights of a row that its mask prunes. A block has a row.
template <class bits_of> __device__ __forceinline__ void apply(bits_of *w, int cols, const unsigned *bits, int words) {
	typedef score::Vector<bits_of, 4> Weights;
	bits_of *row = w + (size_t)blockIdx.x * cols;
	bits += (size_t)blockIdx.x * words;
	bool fours = cols % 4 == 0;
	for (int j = 4 * threadIdx.x; j < cols; j += 4 * blockDim.x) {
		unsigned kept = bits[j / 32] >> j % 32 & 15;
		if (fours) {
			Weights x = *(Weights *)(row + j);
			for (int k = 0; k < 4; k++)
				if (!(kept >> k & 1))
					x.v[k] = 0;
			if (kept != 15)
				*(Weights *)(row + j) = x;
		} else {
			for (int k = 0; k < 4 && j + k < cols; k++)
				if (!(kept >> k & 1))
					row[j + k] = 0;
		}
	}
}

} // namespace selection

extern "C" __global__ void mask_apply_16(unsigned short *w, int cols, const unsigned *bits, int words) { selection::apply(w, cols, bits, words); }
extern "C" __global__ void mask_apply_32(unsigned *w, int cols, const unsigned *bits, int words) { selection::apply(w, cols, bits, words); }

namespace selection {

// Bins of a spread: the leading half of a key. A block counts those of the window that the
// highest is in by shared memory: 16 octaves.
const int spread_low = 16, spread_window = 2048;

} // namespace selection

// select_spread counts scores by the leading 16 bits of their keys, those that the mask
// prunes and those that it keeps apart: n[2·bin + kept] is their number, low[2·bin + kept]
// the sum of their lower 16 bits. No bin in use is above top. A block has rows
// each·blockIdx.x and on, of which it counts 65536 columns, and at most as many keys.
extern "C" __global__ void select_spread(const unsigned *keys, int rows, int cols, int pitch, const unsigned *bits, int words, int each, int top, unsigned *n, unsigned long long *low) {
	__shared__ unsigned counts[2 * selection::spread_window], sums[2 * selection::spread_window];
	const int columns = 1 << selection::spread_low;
	int first = blockIdx.x * each, end = min(first + each, rows), lo = blockIdx.y * columns, hi = min(lo + columns, cols);
	int from = max(top + 1 - selection::spread_window, 0); // the window's first bin
	for (int q = threadIdx.x; q < 2 * selection::spread_window; q += blockDim.x)
		counts[q] = sums[q] = 0;
	__syncthreads();
	for (int i = first; i < end; i++) {
		for (int j = lo + threadIdx.x; j < hi; j += blockDim.x) {
			unsigned key = keys[(size_t)i * pitch + j], kept = bits[(size_t)i * words + j / 32] >> j % 32 & 1;
			int bin = key >> selection::spread_low;
			unsigned rest = key & 0xffff;
			int at = 2 * (bin - from) + kept;
			if (at >= 0) {
				atomicAdd(&counts[at], 1u);
				atomicAdd(&sums[at], rest);
			} else {
				atomicAdd(&n[2 * bin + kept], 1u);
				atomicAdd(&low[2 * bin + kept], (unsigned long long)rest);
			}
		}
	}
	__syncthreads();
	for (int q = threadIdx.x; q < 2 * selection::spread_window; q += blockDim.x) {
		if (counts[q]) {
			atomicAdd(&n[2 * from + q], counts[q]);
			atomicAdd(&low[2 * from + q], (unsigned long long)sums[q]);
		}
	}
}
