// The CPU kernels behind staa.ops: one pass over the big tensors each, forward and backward. Plain C, no Python and no
// torch headers, so one build serves every version of both. staa/ops/cpu.py says what each argument means.
//
// Geometry: a window is [T][N][A][B] in memory. Its channel is A in a contiguous tensor (B = H·W) and B in a
// channels-last one (A = H·W); `vec` says which. Coefficients are float arrays of C = vec ? B : A channels.
//
// The sums are written in the reference's order and never contracted to fused multiply-adds (-ffp-contract=off), so that
// spikes equal the reference's bit for bit.

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#if defined(__x86_64__) && defined(__linux__) && (__GNUC__ >= 12 || __clang_major__ >= 17)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#define INLINE static inline __attribute__((always_inline))
#define EXPORT __attribute__((visibility("default")))

typedef void (*parallel_fn)(void (*)(void *), void *, unsigned, unsigned);  // GOMP_parallel of the OpenMP torch uses

enum { ZERO, SUBTRACT };
enum { NO_SUMS, MAP_SUMS, ALL_SUMS };
enum { RECTANGLE, TRIANGLE, ARCTAN, SIGMOID, FAST_SIGMOID };

typedef struct {
    parallel_fn parallel;            // NULL: on the calling thread
    int64_t threads;
    int64_t T, N, A, B;
    int64_t vec, bf16, strict, reset, surrogate;
    int64_t keep;                    // 0 where the reset is kept out of the backward pass
    const void *x;                   // [T][N][A][B]
    const float *v;                  // [N][A][B] or NULL for rest
    const float *scale, *shift;      // [.][.][C] with the strides below, 0 where they are constant
    int64_t scale_t, scale_n, shift_t, shift_n;
    const float *decay, *gain, *threshold;  // [C]
    void *s;                         // forward: spikes out
    float *h;                        // forward: last membrane out
    const void *gs;                  // backward: gradient of the spikes
    const float *gh;                 // and of the last membrane, or NULL
    void *gx;                        // gradient of x out
    float *gv;                       // and of v, or NULL
    int64_t slabs, sum_t, sum_n;     // pieces of a sample; whether the sums tell steps and samples apart
    float *sum_gu_x, *sum_gu;        // Σ ∂u·x, Σ ∂u        where u = decay·h + gain·(scale·x + shift); or NULL
    float *sum_gu_h, *sum_gthr;      // Σ ∂u·h[t−1], Σ ∂threshold      [C], or NULL
    int64_t past_caches;             // the window is larger than they are
    int64_t failed;                  // out: 1 if scratch memory ran out
    int64_t next, care, careful;     // internal: the next task; whether care must be taken, and is
} Lif;

INLINE float load(const void *p, int64_t i, int bf16) {
    if (!bf16) return ((const float *)p)[i];
    union { uint32_t u; float f; } w = { (uint32_t)((const uint16_t *)p)[i] << 16 };
    return w.f;
}

INLINE void store(void *p, int64_t i, float f, int bf16) {
    if (!bf16) { ((float *)p)[i] = f; return; }
    union { float f; uint32_t u; } w = { f };
    uint32_t rounded = (w.u + 0x7fff + ((w.u >> 16) & 1)) >> 16;
    ((uint16_t *)p)[i] = f != f ? 0x7fc0 : (uint16_t)rounded;  // to nearest, ties to even; NaN stays NaN
}

// What is written out and is larger than the caches goes past them: a store that misses would first read its line.
INLINE void put(char *to, const char *from, int64_t bytes, int past_caches) {
#ifdef __SSE2__
    if (past_caches && !((uintptr_t)to & 15)) {
        int64_t i = 0;
        for (; i + 16 <= bytes; i += 16) _mm_stream_si128((__m128i *)(to + i), _mm_loadu_si128((const __m128i *)(from + i)));
        memcpy(to + i, from + i, bytes - i);
        return;
    }
#endif
    memcpy(to, from, bytes);
}

// Gradients fade below 1e-38, where arithmetic is many times slower: this thread takes them for 0 until it leaves the kernel.
INLINE unsigned begin(int gradients) {
#ifdef __SSE2__
    unsigned before = _mm_getcsr();
    if (gradients) _mm_setcsr(before | 0x8040);
    return before;
#else
    return (unsigned)gradients;
#endif
}

INLINE void end(unsigned before) {
#ifdef __SSE2__
    _mm_setcsr(before);
    _mm_sfence();
#else
    (void)before;
#endif
}

INLINE int64_t min_(int64_t a, int64_t b) { return a < b ? a : b; }

// Bring into the cache what is read next: it lies a step away, in another page, where the processor does not look ahead.
INLINE void fetch(const char *from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(from + i, 0, 2);
}

// e^x to 1e-7, without a call that would stop the loop from being vectorised.
INLINE float exp_(float x) {
    x = x < -87.f ? -87.f : x > 88.f ? 88.f : x;
    float n = (x * 1.44269504f + 12582912.f) - 12582912.f;  // to the nearest whole number
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.f;
    union { int32_t i; float f; } two = { ((int32_t)n + 127) << 23 };
    return p * two.f;
}

INLINE float slope(float u, int surrogate) {
    float a = u < 0 ? -u : u;
    switch (surrogate) {
        case RECTANGLE: return a >= .5f ? 0.f : 1.f;
        case TRIANGLE: return a < 1.f ? 1.f - a : 0.f;
        case ARCTAN: u *= 3.14159265f; return 1.f / (1.f + u * u);
        case SIGMOID: { float e = exp_(-4.f * a), q = 1.f + e; return 4.f * e / (q * q); }
        default: a = 1.f + 25.f * a; return 1.f / (a * a);
    }
}

#define STEP(t, r, c) (((t) * k->N + n) * k->A + (r)) * k->B + (c)

typedef struct {
    int64_t n, r0, r1, c0, c1, size;  // rows r0…r1, columns c0…c1 of sample n: `size` elements at most
    int64_t sum_c;                    // the block's sums: [T or 1][sum_c] and [sum_c]
    float *gu_x, *gu, *gu_h, *gthr;
} Block;

// A spike at distance d = u − threshold: at the threshold or above it, or strictly above it.
//
// What is NaN or infinite takes care: NaN spikes, and the reference's zeros and NaNs in the gradients. It is rare, and it never
// leaves a membrane or its gradient again, whose last values are checked. Then the kernel runs once more, carefully.
INLINE float fire(float d, int strict, int careful) {
    if (careful && d != d) return d;
    return (strict ? d > 0 : d >= 0) ? 1.f : 0.f;
}

// Whether some of n numbers are NaN or infinite.
CLONES static int not_finite(const float *p, int64_t n) {
    int32_t most = 0;
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < n; j++) {
        union { float f; int32_t i; } w = { p[j] };
        int32_t size = w.i & 0x7fffffff;
        most = size > most ? size : most;
    }
    return most >= 0x7f800000;
}

#define WIDTH (b->c1 - b->c0)
#define HERE(r) ((b->n * k->A + (r)) * k->B + b->c0)            // in a tensor of one step
#define AT(t, r) ((((t) * k->N + b->n) * k->A + (r)) * k->B + b->c0)  // in a window
#define OF(type, p, i) ((type *)(p) + (i) * (bf16 ? 2 : 4))

static void gather(const Lif *k, const Block *b, const float *from, float *to) {
    if (!from) memset(to, 0, b->size * 4);
    else for (int64_t r = b->r0; r < b->r1; r++) memcpy(to + (r - b->r0) * WIDTH, from + HERE(r), WIDTH * 4);
}

static void scatter(const Lif *k, const Block *b, const float *from, float *to) {
    if (to) for (int64_t r = b->r0; r < b->r1; r++) memcpy(to + HERE(r), from + (r - b->r0) * WIDTH, WIDTH * 4);
}

// The coefficients of row r at step t: scalars (…0) where a row is one channel, else arrays over its columns.
#define COEFFICIENTS(t, r) \
    int64_t ch = vec ? b->c0 : (r); \
    const float *sc = k->scale + (t) * k->scale_t + b->n * k->scale_n + ch, *sh = k->shift + (t) * k->shift_t + b->n * k->shift_n + ch; \
    const float *de = k->decay + ch, *ga = k->gain + ch, *th = k->threshold + ch; \
    const float sc0 = *sc, sh0 = *sh, de0 = *de, ga0 = *ga, th0 = *th; \
    (void)sh0, (void)ga0, (void)sc0
#define C(p) (vec ? p[j] : p##0)

// Charge, fire and reset through all steps, from h[size]. Puts out the spikes (u is a row's room) or keeps the membranes before
// the reset in u[T][size].
INLINE void charge(const Lif *k, const Block *b, float *h_all, float *u_all, int vec, int bf16, int strict, int reset, int keep_u, int careful) {
    for (int64_t t = 0; t < k->T; t++) {
        for (int64_t r = b->r0; r < b->r1; r++) {
            COEFFICIENTS(t, r);
            const char *x = OF(const char, k->x, AT(t, r));
            int64_t next = t + 1 < k->T ? AT(t + 1, r) : AT(0, r) + b->size;
            fetch(OF(const char, k->x, next), WIDTH * (bf16 ? 2 : 4));
            float *h = h_all + (r - b->r0) * WIDTH, *u = keep_u ? u_all + t * b->size + (r - b->r0) * WIDTH : NULL;
#pragma omp simd
            for (int64_t j = 0; j < WIDTH; j++) {
                float threshold = C(th), w = C(de) * h[j] + C(ga) * (load(x, j, bf16) * C(sc) + C(sh));
                float z = fire(w - threshold, strict, careful);
                if (keep_u) u[j] = w; else store(u_all, j, z, bf16);
                h[j] = reset == ZERO ? w * (1.f - z) : w - threshold * z;
            }
            if (!keep_u) put(OF(char, k->s, AT(t, r)), (char *)u_all, WIDTH * (bf16 ? 2 : 4), k->past_caches);
        }
    }
}

// S'(u − threshold) of one step of a block.
INLINE void slopes(const Lif *k, const Block *b, const float *u_all, float *slope_all, int vec, int surrogate) {
    for (int64_t r = b->r0; r < b->r1; r++) {
        const float *u = u_all + (r - b->r0) * WIDTH, *th = k->threshold + (vec ? b->c0 : r), th0 = *th;
        float *to = slope_all + (r - b->r0) * WIDTH;
#pragma omp simd
        for (int64_t j = 0; j < WIDTH; j++) to[j] = slope(u[j] - C(th), surrogate);
    }
}

CLONES static void all_slopes(const Lif *k, const Block *b, const float *u, float *to) {
    switch (k->surrogate) {
        case RECTANGLE: if (k->vec) slopes(k, b, u, to, 1, RECTANGLE); else slopes(k, b, u, to, 0, RECTANGLE); break;
        case TRIANGLE: if (k->vec) slopes(k, b, u, to, 1, TRIANGLE); else slopes(k, b, u, to, 0, TRIANGLE); break;
        case ARCTAN: if (k->vec) slopes(k, b, u, to, 1, ARCTAN); else slopes(k, b, u, to, 0, ARCTAN); break;
        case SIGMOID: if (k->vec) slopes(k, b, u, to, 1, SIGMOID); else slopes(k, b, u, to, 0, SIGMOID); break;
        default: if (k->vec) slopes(k, b, u, to, 1, FAST_SIGMOID); else slopes(k, b, u, to, 0, FAST_SIGMOID);
    }
}

// One step backward, from g = ∂h[t] to ∂h[t−1] in place. later = ∂u[t+1], replaced by ∂u[t].
INLINE void unfire(const Lif *k, const Block *b, int64_t t, const float *u_all, const float *slope_all, float *g_all,
                   float *later_all, char *out, int vec, int bf16, int strict, int reset, int sums, int careful) {
    const float keep = (float)k->keep;
    const int bounded = k->surrogate != ARCTAN && k->surrogate != SIGMOID;
    for (int64_t r = b->r0; r < b->r1; r++) {
        COEFFICIENTS(t, r);
        int64_t here = (r - b->r0) * WIDTH, st = (k->sum_t ? t * b->sum_c : 0) + ch;
        const char *x = OF(const char, k->x, AT(t, r)), *gs = OF(const char, k->gs, AT(t, r));
        const float *u = u_all + here, *slope = slope_all + here;
        fetch(OF(const char, k->gs, t ? AT(t - 1, r) : AT(k->T - 1, r) + b->size), WIDTH * (bf16 ? 2 : 4));
        float *g = g_all + here, *later = later_all + here;
        float *px = sums ? b->gu_x + st : NULL, *p = sums ? b->gu + st : NULL, *ph = sums == ALL_SUMS ? b->gu_h + ch : NULL, *pt = sums == ALL_SUMS ? b->gthr + ch : NULL;
        float sx = 0, s = 0, sh_ = 0, sthr = 0;
#pragma omp simd reduction(+ : sx, s, sh_, sthr)
        for (int64_t j = 0; j < WIDTH; j++) {
            float threshold = C(th), z = fire(u[j] - threshold, strict, careful), gh = g[j];
            float gd = (load(gs, j, bf16) - keep * gh * (reset == ZERO ? u[j] : threshold)) * slope[j];
            if (careful) {
                float up = load(gs, j, bf16) - (keep ? gh * (reset == ZERO ? u[j] : threshold) : 0.f);
                if (bounded) gd = slope[j] > 0 ? up * slope[j] : 0.f;  // stops any gradient beyond its bounds
                else gd = up * (slope[j] < 1e-37f ? 0.f : slope[j]);   // exp_ ends there
            }
            float gu = (reset == ZERO ? gh * (1.f - z) : gh) + gd;
            store(out, j, gu * C(ga) * C(sc), bf16);
            g[j] = C(de) * gu;
            if (sums) {
                float gx_ = gu * load(x, j, bf16);
                if (vec) { px[j] += gx_; p[j] += gu; }
                else { sx += gx_; s += gu; }
            }
            if (sums == ALL_SUMS) {
                float h = reset == ZERO ? u[j] * (1.f - z) : u[j] - threshold * z;
                float gh_ = careful && t == k->T - 1 ? 0.f : later[j] * h, gthr = -gd - (reset == ZERO ? 0.f : gh * z);
                later[j] = gu;
                if (vec) { ph[j] += gh_; pt[j] += gthr; }
                else { sh_ += gh_; sthr += gthr; }
            }
        }
        put(OF(char, k->gx, AT(t, r)), out, WIDTH * (bf16 ? 2 : 4), k->past_caches);
        if (sums && !vec) { *px += sx; *p += s; }
        if (sums == ALL_SUMS && !vec) { *ph += sh_; *pt += sthr; }
    }
}

#define FORM(i, f, ...) case i: f(__VA_ARGS__, (i) >> 3, (i) >> 2 & 1, (i) >> 1 & 1, (i) & 1); break;
#define FOUR_FORMS(i, ...) FORM(i, __VA_ARGS__) FORM(i + 1, __VA_ARGS__) FORM(i + 2, __VA_ARGS__) FORM(i + 3, __VA_ARGS__)
#define FOR_EACH_FORM(...) \
    switch (k->vec << 3 | k->bf16 << 2 | k->strict << 1 | k->reset) { \
        FOUR_FORMS(0, __VA_ARGS__) FOUR_FORMS(4, __VA_ARGS__) FOUR_FORMS(8, __VA_ARGS__) FOUR_FORMS(12, __VA_ARGS__) \
    }
#define CHARGE_KEEP(...) charge(__VA_ARGS__, 1, 0)
#define CHARGE_FIRE(...) charge(__VA_ARGS__, 0, 0)
#define UNFIRE_ALL(...) unfire(__VA_ARGS__, ALL_SUMS, 0)
#define UNFIRE_MAP(...) unfire(__VA_ARGS__, MAP_SUMS, 0)
#define UNFIRE(...) unfire(__VA_ARGS__, NO_SUMS, 0)

static __attribute__((noinline)) void charge_carefully(const Lif *k, const Block *b, float *h, float *u, int keep_u) {
    charge(k, b, h, u, k->vec, k->bf16, k->strict, k->reset, keep_u, 1);
}

static __attribute__((noinline)) void unfire_carefully(const Lif *k, const Block *b, int64_t t, const float *u, const float *slope,
                                                       float *g, float *later, char *out) {
    int sums = k->sum_gu_h ? ALL_SUMS : k->sum_gu ? MAP_SUMS : NO_SUMS;
    unfire(k, b, t, u, slope, g, later, out, k->vec, k->bf16, k->strict, k->reset, sums, 1);
}

CLONES static void charge_and_fire(const Lif *k, const Block *b, float *h, float *s) { FOR_EACH_FORM(CHARGE_FIRE, k, b, h, s) }
CLONES static void charge_again(const Lif *k, const Block *b, float *h, float *u) { FOR_EACH_FORM(CHARGE_KEEP, k, b, h, u) }
CLONES static void unfire_step(const Lif *k, const Block *b, int64_t t, const float *u, const float *slope, float *g, float *later,
                               char *out) {
    if (k->sum_gu_h) FOR_EACH_FORM(UNFIRE_ALL, k, b, t, u, slope, g, later, out)
    else if (k->sum_gu) FOR_EACH_FORM(UNFIRE_MAP, k, b, t, u, slope, g, later, out)
    else FOR_EACH_FORM(UNFIRE, k, b, t, u, slope, g, later, out)
}

#define NUMBERS ((b->r1 - b->r0) * WIDTH)

// Both return whether what they found takes care.
static int forward_block(const Lif *k, const Block *b, float *h) {
    gather(k, b, k->v, h);
    if (k->careful) charge_carefully(k, b, h, h + b->size, 0);
    else charge_and_fire(k, b, h, h + b->size);
    scatter(k, b, h, k->h);
    return not_finite(h, NUMBERS);
}

// The membranes again, then from the last step to the first.
static int backward_block(const Lif *k, const Block *b, float *scratch) {
    float *slope = scratch, *g = slope + b->size, *later = g + b->size, *out = later + b->size, *u = out + b->size;
    gather(k, b, k->v, g);
    if (k->careful) charge_carefully(k, b, g, u, 1);
    else charge_again(k, b, g, u);
    if (!k->careful && not_finite(g, NUMBERS)) return 1;
    gather(k, b, k->gh, g);
    memset(later, 0, b->size * 4);
    for (int64_t t = k->T - 1; t >= 0; t--) {
        all_slopes(k, b, u + t * b->size, slope);
        if (k->careful) unfire_carefully(k, b, t, u + t * b->size, slope, g, later, (char *)out);
        else unfire_step(k, b, t, u + t * b->size, slope, g, later, (char *)out);
    }
    scatter(k, b, g, k->gv);
    if (k->sum_gu_h && k->v) {  // the first step's share of ∂decay
        for (int64_t r = b->r0; r < b->r1; r++) {
            float *sum = b->gu_h + (k->vec ? b->c0 : r);
            for (int64_t j = 0; j < WIDTH; j++) sum[k->vec ? j : 0] += later[(r - b->r0) * WIDTH + j] * k->v[HERE(r) + j];
        }
    }
    return not_finite(g, NUMBERS);
}

// to[t][row][c] = from[t][c]
static float *repeat(const float *from, int64_t stride, int64_t steps, int64_t channels, int64_t rows, float *to) {
    for (int64_t t = 0; t < steps; t++)
        for (int64_t r = 0; r < rows; r++) memcpy(to + (t * rows + r) * channels, from + t * stride, channels * 4);
    return to + steps * rows * channels;
}

static void gather_sums(float *to, const float *from, int64_t steps, int64_t channels, int64_t rows) {
    for (int64_t t = 0; t < steps; t++)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < channels; c++) to[t * channels + c] += from[(t * rows + r) * channels + c];
}

// A task is one slab of one sample: a fixed share of its blocks. The shares depend on shapes alone, so sums do not depend on
// the number of threads. Where several channels-last rows make a block, the coefficients are repeated for each of them, so that
// the block is one long row; so are the sums.
static void work(Lif *k, int backward) {
    int64_t most = min_(512, 16384 / k->T & ~15);  // elements of a step at once, so that all steps of them stay in the cache
    if (most < 64) most = 64;
    int64_t rows = k->B >= most ? 1 : most / k->B, cols = min_(k->B, most), channels = k->vec ? k->B : k->A;
    int64_t across = (k->B + cols - 1) / cols, blocks = (k->A + rows - 1) / rows * across, size = rows * cols;
    int64_t sum_t = k->sum_t ? k->T : 1, scale_steps = k->scale_t ? k->T : 1, shift_steps = k->shift_t ? k->T : 1;
    int tiled = k->vec && rows > 1, sums = backward && k->sum_gu;
    int64_t tiles = tiled ? (scale_steps + shift_steps + 3) * size : 0, summed = tiled && sums ? (2 * sum_t + 2) * size : 0;
    float *scratch = malloc(((backward ? k->T + 4 : 2) * size + tiles + summed) * 4), *tile = scratch + (backward ? k->T + 4 : 2) * size;
    if (!scratch) { k->failed = 1; return; }
    unsigned before = begin(backward);
    float *sum = tile + tiles, *sum_gu = sum + sum_t * size, *sum_gu_h = sum_gu + sum_t * size, *sum_gthr = sum_gu_h + size;
    for (int64_t task; (task = __atomic_fetch_add(&k->next, 1, __ATOMIC_RELAXED)) < k->N * k->slabs;) {
        int64_t n = task / k->slabs, slab = task % k->slabs, of = slab * k->N + n;
        Lif mine = *k;
        Block b = { .n = n, .size = size, .sum_c = channels };
        if (sums) {
            b.gu_x = k->sum_gu_x + of * sum_t * channels, b.gu = k->sum_gu + of * sum_t * channels;
            if (k->sum_gu_h) b.gu_h = k->sum_gu_h + of * channels, b.gthr = k->sum_gthr + of * channels;
        }
        Block whole = b;
        if (tiled) {
            float *to = tile;
            mine.scale = to, to = repeat(k->scale + n * k->scale_n, k->scale_t, scale_steps, channels, rows, to);
            mine.shift = to, to = repeat(k->shift + n * k->shift_n, k->shift_t, shift_steps, channels, rows, to);
            mine.decay = to, to = repeat(k->decay, 0, 1, channels, rows, to);
            mine.gain = to, to = repeat(k->gain, 0, 1, channels, rows, to);
            mine.threshold = to, repeat(k->threshold, 0, 1, channels, rows, to);
            mine.scale_n = mine.shift_n = 0;
            mine.scale_t = k->scale_t ? size : 0, mine.shift_t = k->shift_t ? size : 0;
            if (sums) {
                memset(sum, 0, summed * 4);
                b.sum_c = size, b.gu_x = sum, b.gu = sum_gu, b.gu_h = sum_gu_h, b.gthr = sum_gthr;
            }
        }
        for (int64_t i = blocks * slab / k->slabs; i < blocks * (slab + 1) / k->slabs; i++) {
            int64_t r = i / across * rows, c = i % across * cols, last = min_(r + rows, k->A);
            b.r0 = r, b.r1 = tiled ? r + 1 : last, b.c0 = c, b.c1 = tiled ? (last - r) * cols : min_(c + cols, k->B);
            int care = backward ? backward_block(&mine, &b, scratch) : forward_block(&mine, &b, scratch);
            if (care) __atomic_store_n(&k->care, 1, __ATOMIC_RELAXED);
        }
        if (tiled && sums) {
            gather_sums(whole.gu_x, sum, sum_t, channels, rows), gather_sums(whole.gu, sum_gu, sum_t, channels, rows);
            if (k->sum_gu_h) gather_sums(whole.gu_h, sum_gu_h, 1, channels, rows), gather_sums(whole.gthr, sum_gthr, 1, channels, rows);
        }
    }
    free(scratch);
    end(before);
}

static void forward_work(void *k) { work(k, 0); }
static void backward_work(void *k) { work(k, 1); }

static void run(Lif *k, void (*f)(void *)) {
    k->next = k->failed = k->care = 0;
    if (k->parallel && k->threads > 1 && k->N * k->slabs > 1) k->parallel(f, k, (unsigned)k->threads, 0);
    else f(k);
}

EXPORT void staa_lif_forward(Lif *k) {
    k->careful = 0, run(k, forward_work);
    if (k->care) k->careful = 1, run(k, forward_work);
}

// to[t][n][c] = Σ from[slab][n][t][c], over the samples too where they are not told apart
static void reduce(const Lif *k, const float *from, int64_t steps, int64_t samples, int64_t channels, float *to) {
    memset(to, 0, steps * samples * channels * 4);
    for (int64_t i = 0; i < k->slabs * k->N * steps; i++, from += channels) {
        float *sum = to + (i % steps * samples + (samples > 1 ? i / steps % k->N : 0)) * channels;
        for (int64_t c = 0; c < channels; c++) sum[c] += from[c];
    }
}

// The tasks add up [slabs][N][T or 1][C] and [slabs][N][C] of their own.
EXPORT void staa_lif_backward(Lif *k) {
    const Lif out = *k;
    int64_t channels = k->vec ? k->B : k->A, steps = k->sum_t ? k->T : 1, samples = k->sum_n ? k->N : 1;
    int64_t tasks = k->slabs * k->N * channels, summed = k->sum_gu ? tasks * (2 * steps + (k->sum_gu_h ? 2 : 0)) : 0;
    float *parts = summed ? malloc(summed * 4) : NULL;
    if (summed && !parts) { k->failed = 1; return; }
    if (k->sum_gu) k->sum_gu_x = parts, k->sum_gu = parts + tasks * steps;
    if (k->sum_gu_h) k->sum_gu_h = k->sum_gu + tasks * steps, k->sum_gthr = k->sum_gu_h + tasks;
    for (k->careful = 0; k->careful < 2; k->careful++) {
        if (summed) memset(parts, 0, summed * 4);
        run(k, backward_work);
        if (!k->care) break;
    }
    if (!summed) return;
    reduce(k, k->sum_gu_x, steps, samples, channels, out.sum_gu_x), reduce(k, k->sum_gu, steps, samples, channels, out.sum_gu);
    if (out.sum_gu_h) reduce(k, k->sum_gu_h, 1, 1, channels, out.sum_gu_h), reduce(k, k->sum_gthr, 1, 1, channels, out.sum_gthr);
    free(parts);
}

// ---------------------------------------------------------------------------------------------------------------------------
// Averages over the space of each frame x[f], f = (t, n): [A][B], channels as above. staa/ops/fold.py says what they are for.

typedef struct {
    parallel_fn parallel;
    int64_t threads;
    int64_t F, A, B, vec, bf16, past_caches;
    const void *x, *up;              // [F][A][B]; up: a gradient that arrives, or NULL
    void *out;                       // [F][A][B]
    float *mean, *m2;                // [F][C]: mean; Σ (x − mean)², internal
    const float *weight, *bias;      // [C] or NULL
    double eps;
    float *scale, *shift, *all_mean, *variance;           // [C]
    const float *grad_scale, *grad_shift, *grad_mean;     // [C], [C], [F][C]; or NULL
    float *grad_weight;              // [C]
    const float *key;                // [C], with a stride of C between frames or 0
    int64_t key_f;
    float *weights, *context;        // [F][space], [F][C]
    const float *alpha, *beta;       // [C] with a stride of alpha_f between frames, [C]
    int64_t alpha_f;
    float *grad_key;                 // [F][C]
    int64_t failed, next;
} Frames;

#define FRAME(type, p) ((type *)(p) + f * k->A * k->B * (bf16 ? 2 : 4))
#define ROW(type, p, r) ((type *)(p) + (r) * k->B * (bf16 ? 2 : 4))

// Rows are taken in blocks that stay in the cache, each by its mean and its deviations from that, and then merged (Chan et al.).
INLINE void frame_moments(const Frames *k, int64_t f, float *scratch, int vec, int bf16) {
    const char *x = FRAME(const char, k->x);
    int64_t channels = vec ? k->B : k->A;
    float *mean = k->mean + f * channels, *m2 = k->m2 + f * channels;
    if (!vec) {
        for (int64_t r = 0; r < k->A; r++) {
            const char *row = ROW(const char, x, r);
            double m = 0, ss = 0;
            for (int64_t j0 = 0; j0 < k->B; j0 += 4096) {
                int64_t n = min_(4096, k->B - j0);
                float sum = 0, dev = 0;
#pragma omp simd reduction(+ : sum)
                for (int64_t j = 0; j < n; j++) sum += load(row, j0 + j, bf16);
                float here = sum / (float)n;
#pragma omp simd reduction(+ : dev)
                for (int64_t j = 0; j < n; j++) { float d = load(row, j0 + j, bf16) - here; dev += d * d; }
                double d = here - m, all = (double)(j0 + n);
                ss += dev + d * d * ((double)j0 * (double)n / all);
                m += d * ((double)n / all);
            }
            mean[r] = (float)m, m2[r] = (float)ss;
        }
        return;
    }
    float *here = scratch, *dev = scratch + channels;
    int64_t rows = 4096 / channels + 1;
    memset(mean, 0, channels * 4), memset(m2, 0, channels * 4);
    for (int64_t r0 = 0; r0 < k->A; r0 += rows) {
        int64_t n = min_(rows, k->A - r0);
        memset(here, 0, channels * 4), memset(dev, 0, channels * 4);
        for (int64_t r = r0; r < r0 + n; r += 4) {  // four rows at once: less to load and store of the sums
            int64_t many = r + 4 <= r0 + n;
            const char *a = ROW(const char, x, r), *b = ROW(const char, x, r + many), *c = ROW(const char, x, r + 2 * many),
                       *d = ROW(const char, x, r + 3 * many);
            if (many) {
#pragma omp simd
                for (int64_t j = 0; j < channels; j++)
                    here[j] += (load(a, j, bf16) + load(b, j, bf16)) + (load(c, j, bf16) + load(d, j, bf16));
                continue;
            }
            for (int64_t q = r; q < r0 + n; q++) {
                const char *row = ROW(const char, x, q);
#pragma omp simd
                for (int64_t j = 0; j < channels; j++) here[j] += load(row, j, bf16);
            }
        }
        float share = 1.f / (float)n, all = (float)(r0 + n), part = (float)n / all, spread = (float)r0 * part;
#pragma omp simd
        for (int64_t j = 0; j < channels; j++) here[j] *= share;
        for (int64_t r = r0; r < r0 + n; r += 2) {
            const char *row = ROW(const char, x, r), *next = ROW(const char, x, r + 1 < r0 + n ? r + 1 : r);
            float second = r + 1 < r0 + n ? 1.f : 0.f;
#pragma omp simd
            for (int64_t j = 0; j < channels; j++) {
                float d = load(row, j, bf16) - here[j], e = load(next, j, bf16) - here[j];
                dev[j] += d * d + second * (e * e);
            }
        }
#pragma omp simd
        for (int64_t j = 0; j < channels; j++) {
            float d = here[j] - mean[j];
            m2[j] += dev[j] + d * d * spread;
            mean[j] += d * part;
        }
    }
}

// out = up + alpha + beta · x. Several channels-last rows are one long row, the coefficients repeated for each.
INLINE void frame_add_affine(const Frames *k, int64_t f, float *scratch, int vec, int bf16) {
    const char *x = FRAME(const char, k->x), *up = k->up ? FRAME(const char, k->up) : NULL;
    int64_t channels = vec ? k->B : k->A, rows = vec && channels <= 256 ? min_(512 / channels, k->A) : 1;
    const float *al = k->alpha + f * k->alpha_f, *be = k->beta;
    if (rows > 1) {
        repeat(be, 0, 1, channels, rows, repeat(al, 0, 1, channels, rows, scratch + 512));
        al = scratch + 512, be = al + rows * channels;
    }
    for (int64_t r = 0; r < k->A; r += rows) {
        const char *row = ROW(const char, x, r), *above = up ? ROW(const char, up, r) : NULL;
        const float al0 = al[vec ? 0 : r], be0 = be[vec ? 0 : r];
        int64_t width = k->B * min_(rows, k->A - r);
        for (int64_t j0 = 0; j0 < width; j0 += 512) {
            int64_t n = min_(512, width - j0);
            const float *a = al + (vec ? j0 : 0), *b = be + (vec ? j0 : 0);
#pragma omp simd
            for (int64_t j = 0; j < n; j++) {
                float g = (vec ? a[j] : al0) + (vec ? b[j] : be0) * load(row, j0 + j, bf16);
                store(scratch, j, above ? g + load(above, j0 + j, bf16) : g, bf16);
            }
            put(ROW(char, FRAME(char, k->out), r) + j0 * (bf16 ? 2 : 4), (char *)scratch, n * (bf16 ? 2 : 4), k->past_caches);
        }
    }
}

// to[position] = Σ_c by[c] x[c][position]
INLINE void over_channels(const Frames *k, const char *x, const float *by, float *to, int vec, int bf16) {
    if (!vec) memset(to, 0, k->B * 4);
    for (int64_t r = 0; r < k->A; r++) {
        const char *row = ROW(const char, x, r);
        const float by0 = by[vec ? 0 : r];
        float sum = 0;
        if (vec) {
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < k->B; j++) sum += by[j] * load(row, j, bf16);
            to[r] = sum;
        } else {
#pragma omp simd
            for (int64_t j = 0; j < k->B; j++) to[j] += by0 * load(row, j, bf16);
        }
    }
}

// to[c] = Σ_position by[position] x[c][position]
INLINE void over_space(const Frames *k, const char *x, const float *by, float *to, int vec, int bf16) {
    if (vec) memset(to, 0, k->B * 4);
    for (int64_t r = 0; r < k->A; r++) {
        const char *row = ROW(const char, x, r);
        const float by0 = by[vec ? r : 0];
        float sum = 0;
        if (vec) {
#pragma omp simd
            for (int64_t j = 0; j < k->B; j++) to[j] += by0 * load(row, j, bf16);
        } else {
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < k->B; j++) sum += by[j] * load(row, j, bf16);
            to[r] = sum;
        }
    }
}

// weights = softmax over positions of Σ_c key·x;  context = Σ_positions weights·x;  mean over positions
INLINE void frame_context(const Frames *k, int64_t f, float *scratch, int vec, int bf16) {
    const char *x = FRAME(const char, k->x);
    int64_t channels = vec ? k->B : k->A, space = vec ? k->A : k->B;
    float *w = k->weights + f * space, most, sum = 0;
    over_channels(k, x, k->key + f * k->key_f, w, vec, bf16);
    most = w[0];
#pragma omp simd reduction(max : most)
    for (int64_t j = 0; j < space; j++) most = w[j] > most ? w[j] : most;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < space; j++) { w[j] = exp_(w[j] - most); sum += w[j]; }
    sum = 1.f / sum;
#pragma omp simd
    for (int64_t j = 0; j < space; j++) w[j] *= sum;
    over_space(k, x, w, k->context + f * channels, vec, bf16);
    for (int64_t j = 0; j < space; j++) scratch[j] = 1.f / (float)space;
    over_space(k, x, scratch, k->mean + f * channels, vec, bf16);
}

// With context = ∂context, and alpha = ∂mean / space:  out = up + weights·context + ∂k·key + alpha, where
// ∂k = weights · (Σ_c ∂context·x − their weighted mean);  grad_key = Σ_positions ∂k·x
INLINE void frame_context_backward(const Frames *k, int64_t f, float *scratch, int vec, int bf16) {
    const char *x = FRAME(const char, k->x), *up = k->up ? FRAME(const char, k->up) : NULL;
    int64_t channels = vec ? k->B : k->A, space = vec ? k->A : k->B;
    const float *w = k->weights + f * space, *gc = k->context + f * channels, *key = k->key + f * k->key_f;
    const float *al = k->alpha + f * k->alpha_f;
    float *gk = scratch, *out = scratch + space, mean = 0;
    over_channels(k, x, gc, gk, vec, bf16);
#pragma omp simd reduction(+ : mean)
    for (int64_t j = 0; j < space; j++) mean += w[j] * gk[j];
#pragma omp simd
    for (int64_t j = 0; j < space; j++) gk[j] = w[j] * (gk[j] - mean);
    over_space(k, x, gk, k->grad_key + f * channels, vec, bf16);
    for (int64_t r = 0; r < k->A; r++) {
        const char *above = up ? ROW(const char, up, r) : NULL;
        const float gc0 = gc[vec ? 0 : r], key0 = key[vec ? 0 : r], w0 = w[vec ? r : 0], gk0 = gk[vec ? r : 0];
        const float al0 = al[vec ? 0 : r];
        for (int64_t j0 = 0; j0 < k->B; j0 += 512) {
            int64_t n = min_(512, k->B - j0);
#pragma omp simd
            for (int64_t j = 0; j < n; j++) {
                float g = vec ? w0 * gc[j0 + j] + gk0 * key[j0 + j] + al[j0 + j]
                              : w[j0 + j] * gc0 + gk[j0 + j] * key0 + al0;
                store(out, j, above ? g + load(above, j0 + j, bf16) : g, bf16);
            }
            put(ROW(char, FRAME(char, k->out), r) + j0 * (bf16 ? 2 : 4), (char *)out, n * (bf16 ? 2 : 4), k->past_caches);
        }
    }
}

#define FRAME_KERNEL(name, function, floats, gradients) \
    CLONES static void function##_any(const Frames *k, int64_t f, float *scratch) { \
        if (k->vec) { if (k->bf16) function(k, f, scratch, 1, 1); else function(k, f, scratch, 1, 0); } \
        else { if (k->bf16) function(k, f, scratch, 0, 1); else function(k, f, scratch, 0, 0); } \
    } \
    static void function##_work(void *p) { \
        Frames *k = p; \
        float *scratch = malloc((floats) * 4); \
        if (!scratch) { k->failed = 1; return; } \
        unsigned before = begin(gradients); \
        for (int64_t f; (f = __atomic_fetch_add(&k->next, 1, __ATOMIC_RELAXED)) < k->F;) function##_any(k, f, scratch); \
        free(scratch); \
        end(before); \
    } \
    name(Frames *k) { \
        k->next = k->failed = 0; \
        if (k->parallel && k->threads > 1 && k->F > 1) k->parallel(function##_work, k, (unsigned)k->threads, 0); \
        else function##_work(k); \
    }

FRAME_KERNEL(static void moments, frame_moments, 2 * k->B, 0)
FRAME_KERNEL(static void add_affine, frame_add_affine, 3 * 512, 1)
FRAME_KERNEL(EXPORT void staa_context, frame_context, k->vec ? k->A : k->B, 0)
FRAME_KERNEL(EXPORT void staa_context_backward, frame_context_backward, 512 + (k->vec ? k->A : k->B), 1)

// BatchNorm's statistics from those of the frames, all of one size, and what they make of weight and bias.
EXPORT void staa_batch_norm(Frames *k) {
    int64_t channels = k->vec ? k->B : k->A;
    double space = (double)(k->vec ? k->A : k->B), frames = (double)k->F;
    double *mean = calloc(2 * channels, sizeof(double)), *variance = mean + channels;
    k->m2 = malloc(k->F * channels * 4);
    if (mean && k->m2) moments(k);
    k->failed |= !mean || !k->m2;
    if (k->failed) { free(mean), free(k->m2); return; }
    for (int64_t i = 0; i < k->F; i++)
        for (int64_t c = 0; c < channels; c++) mean[c] += k->mean[i * channels + c] / frames;
    for (int64_t i = 0; i < k->F; i++) {
        for (int64_t c = 0; c < channels; c++) {
            double d = k->mean[i * channels + c] - mean[c];
            variance[c] += (k->m2[i * channels + c] / space + d * d) / frames;
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        double scale = (k->weight ? k->weight[c] : 1) / sqrt(variance[c] + k->eps);
        k->scale[c] = (float)scale, k->shift[c] = (float)((k->bias ? k->bias[c] : 0) - mean[c] * scale);
        k->all_mean[c] = (float)mean[c], k->variance[c] = (float)variance[c];
    }
    free(mean), free(k->m2);
}

// The gradients of scale, shift and the frames' means, to that of x: out = up + alpha + beta · x; see _BatchNorm in fold.py.
EXPORT void staa_batch_norm_backward(Frames *k) {
    int64_t channels = k->vec ? k->B : k->A, rows = k->grad_mean ? k->F : 1;
    double space = (double)(k->vec ? k->A : k->B), count = space * (double)k->F;
    float *beta = malloc((rows + 1) * channels * 4), *alpha = beta + channels;
    if (!beta) { k->failed = 1; return; }
    for (int64_t c = 0; c < channels; c++) {
        double shift_ = k->grad_shift ? k->grad_shift[c] : 0, scale_ = (k->grad_scale ? k->grad_scale[c] : 0) - k->all_mean[c] * shift_;
        double inverse = 1 / sqrt(k->variance[c] + k->eps), through = scale_ * inverse;
        k->grad_weight[c] = (float)through;
        beta[c] = (float)(-through * k->scale[c] * inverse / count);
        alpha[c] = (float)(-k->scale[c] * shift_ / count) - beta[c] * k->all_mean[c];
    }
    if (k->grad_mean) {
        for (int64_t i = rows; i--;)
            for (int64_t c = 0; c < channels; c++) alpha[i * channels + c] = alpha[c] + k->grad_mean[i * channels + c] / (float)space;
    }
    k->alpha = alpha, k->beta = beta, k->alpha_f = k->grad_mean ? channels : 0;
    add_affine(k);
    free(beta);
}

// ---------------------------------------------------------------------------------------------------------------------------
// Zeros and ones as bits: 32 elements a word, in memory order.

typedef struct {
    parallel_fn parallel;
    int64_t threads, count, bf16;
    void *x;                         // [count]
    uint32_t *bits;                  // [count / 32, rounded up]
    int64_t other, next;             // out: 1 where x holds anything else
} Bits;

enum { BITS_AT_ONCE = 1 << 15 };

#define WORD_LOOPS(type, one, shift) \
    type *x = (type *)k->x + i; \
    for (int64_t w = 0; w < n; w += 32, x += 32) { \
        int64_t m = min_(32, n - w); \
        uint32_t word = 0, other = 0; \
        _Pragma("omp simd reduction(| : word, other)") \
        for (int64_t j = 0; j < m; j++) { uint32_t u = x[j]; word |= (u >> shift & 1) << j; other |= u != 0 && u != one; } \
        k->bits[(i + w) / 32] = word; \
        if (other) { __atomic_store_n(&k->other, 1, __ATOMIC_RELAXED); return; } \
    }
#define ELEMENT_LOOPS(type, one) \
    type *x = (type *)k->x + i; \
    for (int64_t w = 0; w < n; w += 32, x += 32) { \
        int64_t m = min_(32, n - w); \
        uint32_t word = k->bits[(i + w) / 32]; \
        _Pragma("omp simd") \
        for (int64_t j = 0; j < m; j++) x[j] = word >> j & 1 ? one : 0; \
    }

CLONES static void pack_some(Bits *k, int64_t i, int64_t n) {
    if (k->bf16) { WORD_LOOPS(uint16_t, 0x3f80u, 7) } else { WORD_LOOPS(uint32_t, 0x3f800000u, 23) }
}

CLONES static void unpack_some(Bits *k, int64_t i, int64_t n) {
    if (k->bf16) { ELEMENT_LOOPS(uint16_t, 0x3f80u) } else { ELEMENT_LOOPS(uint32_t, 0x3f800000u) }
}

#define BITS_KERNEL(name, function) \
    static void function##_work(void *p) { \
        Bits *k = p; \
        for (int64_t i; !k->other && (i = __atomic_fetch_add(&k->next, BITS_AT_ONCE, __ATOMIC_RELAXED)) < k->count;) \
            function(k, i, min_(BITS_AT_ONCE, k->count - i)); \
    } \
    EXPORT void name(Bits *k) { \
        k->next = k->other = 0; \
        if (k->parallel && k->threads > 1) k->parallel(function##_work, k, (unsigned)k->threads, 0); \
        else function##_work(k); \
    }

BITS_KERNEL(staa_pack, pack_some)
BITS_KERNEL(staa_unpack, unpack_some)

EXPORT int64_t staa_version(void) { return 3; }
