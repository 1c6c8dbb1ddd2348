// The program that holds the CUDA driver for crepe. crepe itself is a static binary,
// which cannot open libcuda: that needs the system's loader and C library. So it writes
// this small dynamic program into memory, starts it, and calls functions in it through
// memory that both share.
//
// File descriptor 3 is that memory: a header of a page, then slots of commands in a
// ring. Whoever posts fills slot head % SLOTS and raises head; this program runs the
// commands in order and raises tail. It knows nothing of CUDA but how a launch passes
// its arguments. It ends when its parent does.
//
// Nothing of a C library is called but dlopen, dlsym and dlerror.

typedef unsigned long u64;
typedef long i64;
typedef unsigned int u32;

extern void *dlopen(const char *name, int flags);
extern void *dlsym(void *handle, const char *name);
extern char *dlerror(void);
extern int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void), void (*fini)(void), void (*ld_fini)(void), void *stack_end);

enum { SLOTS = 4096, ARGS = 58, SPINS = 20000 };

typedef struct {
	u64 base;                    // address of this memory in this program
	u64 dlopen, dlsym, dlerror;  // addresses of functions
	u64 map;                     // of map_memory
	u64 failed;                  // the first posted command that did not return 0, from 1 on; 0: none
	i64 failure;                 // what it returned
	u64 alive;                   // 1 once the rest is set
	u64 result;                  // of the last CALL
	char pad0[56];
	volatile u64 head;           // commands posted
	char pad1[120];
	volatile u64 tail;           // commands done
	volatile u32 asleep;         // futex: 1 while this program waits for head to rise
} header;

typedef struct {
	u64 op;      // CALL, POST: like it, but what is not 0 is noted as a failure; LAUNCH
	u64 f;       // address of the function
	u64 n;       // arguments
	u64 unused[3];
	u64 args[ARGS]; // of a launch: function, grid, block, shared memory, stream, then the kernel's
} slot;

enum { CALL, POST, LAUNCH };

static i64 sys(i64 n, i64 a, i64 b, i64 c, i64 d, i64 e, i64 f) {
#if defined(__x86_64__)
	i64 r;
	register i64 r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
	__asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
	return r;
#elif defined(__aarch64__)
	register i64 x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c,
		x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
	return x0;
#endif
}

#if defined(__x86_64__)
enum { NR_mmap = 9, NR_getppid = 110, NR_futex = 202, NR_exit_group = 231 };
#else
enum { NR_mmap = 222, NR_getppid = 173, NR_futex = 98, NR_exit_group = 94 };
#endif

// map_memory maps n bytes of file descriptor 4 from offset on.
static i64 map_memory(u64 offset, u64 n) {
	return sys(NR_mmap, 0, n, 3 /* read, write */, 1 /* shared */, 4, offset);
}

typedef u64 (*function)(u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64, u64);

static u64 call(slot *s) {
	u64 *a = s->args;
	return ((function)s->f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9], a[10], a[11], a[12], a[13], a[14], a[15]);
}

// launch calls cuLaunchKernel; every argument of the kernel lies in 8 bytes.
static u64 launch(slot *s) {
	u64 *a = s->args;
	void *params[ARGS];
	for (u64 i = 9; i < s->n; i++)
		params[i - 9] = &a[i];
	typedef u32 (*launcher)(u64, u32, u32, u32, u32, u32, u32, u32, u64, void **, void **);
	return ((launcher)s->f)(a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], params, 0);
}

static int run(int argc, char **argv, char **env) {
	(void)argc, (void)argv, (void)env;
	i64 parent = sys(NR_getppid, 0, 0, 0, 0, 0, 0);
	u64 size = 4096 + SLOTS * sizeof(slot) + (1 << 20);
	i64 base = sys(NR_mmap, 0, size, 3, 1, 3, 0);
	if (base < 0 && base > -4096)
		return 2;
	header *h = (header *)base;
	slot *slots = (slot *)(base + 4096);
	h->base = base;
	h->dlopen = (u64)dlopen, h->dlsym = (u64)dlsym, h->dlerror = (u64)dlerror, h->map = (u64)map_memory;
	__atomic_store_n(&h->alive, 1, __ATOMIC_SEQ_CST);
	for (u64 tail = 0;; tail++) {
		for (int spins = 0; __atomic_load_n(&h->head, __ATOMIC_ACQUIRE) == tail; spins++) {
			if (spins < SPINS) {
#if defined(__x86_64__)
				__asm__ volatile("pause");
#else
				__asm__ volatile("yield");
#endif
				continue;
			}
			__atomic_store_n(&h->asleep, 1, __ATOMIC_SEQ_CST);
			if (__atomic_load_n(&h->head, __ATOMIC_SEQ_CST) == tail) {
				i64 timeout[2] = {0, 200000000};
				sys(NR_futex, (i64)&h->asleep, 0 /* wait */, 1, (i64)timeout, 0, 0);
			}
			__atomic_store_n(&h->asleep, 0, __ATOMIC_SEQ_CST);
			if (sys(NR_getppid, 0, 0, 0, 0, 0, 0) != parent)
				sys(NR_exit_group, 0, 0, 0, 0, 0, 0);
		}
		slot *s = &slots[tail % SLOTS];
		u64 r = s->op == LAUNCH ? launch(s) : call(s);
		if (s->op == CALL)
			h->result = r;
		else if ((u32)r != 0 && h->failed == 0) {
			h->failure = (u32)r;
			__atomic_store_n(&h->failed, tail + 1, __ATOMIC_SEQ_CST);
		}
		__atomic_store_n(&h->tail, tail + 1, __ATOMIC_RELEASE);
	}
}

// The entry: the loader has initialised the C library's own state; the C library does
// the rest, as for any program.
#if defined(__x86_64__)
__asm__(".globl _start\n_start:\n xor %ebp,%ebp\n mov %rsp,%rdi\n mov %rdx,%rsi\n and $-16,%rsp\n call begin\n hlt\n");
#else
__asm__(".globl _start\n_start:\n mov x29,#0\n mov x1,x0\n mov x0,sp\n bl begin\n");
#endif

__attribute__((used)) void begin(i64 *stack, void (*fini)(void)) {
	__libc_start_main(run, (int)stack[0], (char **)(stack + 1), 0, 0, fini, stack);
}
