/* The part of CUDA's public driver API that edgeco uses, over host memory: what makes pycuda and cuda.bindings run where
   there is no GPU. Work is done at once, except on a stream that records: that is kept and done by cuGraphLaunch.
   Build: cc -shared -fPIC -Wl,-soname,libcuda.so.1 -o libcuda.so.1 libcuda.c -ldl */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int R;
typedef unsigned long long P;
enum { OK = 0, INVALID = 1, OOM = 2, NO_DEVICE = 100, BAD_CONTEXT = 201, BAD_HANDLE = 400, NOT_FOUND = 500, CAPTURE = 901 };
enum { COPY, FILL, HOST };
typedef struct { int kind; void *to; const void *from; size_t size; unsigned pattern; int width; void (*call)(void *); void *data; } Op;
typedef struct { Op *ops; int count, held; } Graph;
typedef struct { int alive; Graph *recording; } Stream;

static int context, retained, live;
static size_t used;
static __thread int stack; /* contexts of this thread */

int mock_live(void) { return live; }         /* allocations, streams, events and graphs not given back */
int mock_retained(void) { return retained; } /* references to the primary context */
int mock_depth(void) { return stack; }       /* contexts pushed in this thread and not popped */

#define CURRENT if (!stack) return BAD_CONTEXT

static void perform(const Op *op) {
    size_t i;
    if (op->kind == COPY) memmove(op->to, op->from, op->size);
    else if (op->kind == HOST) op->call(op->data);
    else for (i = 0; i < op->size; i++) memcpy((char *)op->to + i * op->width, &op->pattern, op->width);
}

static R give(Stream *s, Op op) {
    CURRENT;
    if (s && !s->alive) return BAD_HANDLE;
    if (s && s->recording) {
        Graph *g = s->recording;
        if (g->count == g->held) g->ops = realloc(g->ops, (g->held = 2 * g->held + 8) * sizeof(Op));
        g->ops[g->count++] = op;
    } else perform(&op);
    return OK;
}

R cuInit(unsigned flags) { return getenv("MOCK_CUDA_NO_DEVICE") ? NO_DEVICE : OK; }
R cuDriverGetVersion(int *v) { *v = 12060; return OK; }
R cuDeviceGetCount(int *n) { *n = 1; return OK; }
R cuDeviceGet(int *d, int i) { *d = i; return i ? INVALID : OK; }
R cuDeviceGetName(char *name, int size, int d) { snprintf(name, size, "Mock GPU"); return OK; }
R cuDeviceComputeCapability(int *a, int *b, int d) { *a = 8; *b = 7; return OK; }
R cuDeviceTotalMem_v2(size_t *n, int d) { *n = (size_t)8 << 30; return OK; }
R cuDeviceGetAttribute(int *v, int a, int d) { *v = a == 75 ? 8 : a == 76 ? 7 : 0; return OK; }
R cuDevicePrimaryCtxRetain(void **c, int d) { retained++; *c = &context; return OK; }
R cuDevicePrimaryCtxRelease_v2(int d) { retained--; return OK; }
R cuDevicePrimaryCtxRelease(int d) { return cuDevicePrimaryCtxRelease_v2(d); }
R cuCtxPushCurrent_v2(void *c) { stack++; return OK; }
R cuCtxPopCurrent_v2(void **c) { CURRENT; stack--; if (c) *c = &context; return OK; }
R cuCtxGetCurrent(void **c) { *c = stack ? &context : 0; return OK; }
R cuCtxGetDevice(int *d) { CURRENT; *d = 0; return OK; }
R cuCtxSynchronize(void) { CURRENT; return OK; }
R cuMemGetInfo_v2(size_t *f, size_t *t) { CURRENT; *t = (size_t)8 << 30; *f = *t - used; return OK; }

R cuMemAlloc_v2(P *p, size_t n) {
    CURRENT;
    if (n > (size_t)8 << 30) return OOM;
    *p = (P)(uintptr_t)aligned_alloc(256, (n + 255) & ~(size_t)255);
    memset((void *)(uintptr_t)*p, 0xCD, n);
    live++;
    return OK;
}
R cuMemFree_v2(P p) { CURRENT; free((void *)(uintptr_t)p); live--; return OK; }
R cuMemHostAlloc(void **p, size_t n, unsigned f) { CURRENT; *p = aligned_alloc(256, (n + 255) & ~(size_t)255); live++; return OK; }
R cuMemAllocHost_v2(void **p, size_t n) { return cuMemHostAlloc(p, n, 0); }
R cuMemFreeHost(void *p) { CURRENT; free(p); live--; return OK; }

R cuStreamCreate(Stream **s, unsigned f) { CURRENT; *s = calloc(1, sizeof **s); (*s)->alive = 1; live++; return OK; }
R cuStreamDestroy_v2(Stream *s) { CURRENT; s->alive = 0; live--; return OK; }
R cuStreamSynchronize(Stream *s) { CURRENT; return s && s->recording ? CAPTURE : OK; }
R cuStreamQuery(Stream *s) { CURRENT; return OK; }
R cuStreamWaitEvent(Stream *s, void *e, unsigned f) { CURRENT; return OK; }
R cuEventCreate(void **e, unsigned f) { CURRENT; *e = malloc(8); live++; return OK; }
R cuEventDestroy_v2(void *e) { CURRENT; free(e); live--; return OK; }
R cuEventRecord(void *e, Stream *s) { CURRENT; return OK; }
R cuEventSynchronize(void *e) { CURRENT; return OK; }
R cuEventElapsedTime(float *ms, void *a, void *b) { *ms = 1; return OK; }
R cuEventElapsedTime_v2(float *ms, void *a, void *b) { *ms = 1; return OK; }

R cuMemcpyHtoDAsync_v2(P to, const void *from, size_t n, Stream *s) { return give(s, (Op){COPY, (void *)(uintptr_t)to, from, n}); }
R cuMemcpyDtoHAsync_v2(void *to, P from, size_t n, Stream *s) { return give(s, (Op){COPY, to, (void *)(uintptr_t)from, n}); }
R cuMemcpyDtoDAsync_v2(P to, P from, size_t n, Stream *s) { return give(s, (Op){COPY, (void *)(uintptr_t)to, (void *)(uintptr_t)from, n}); }
static R fill(P to, unsigned v, size_t n, int width, Stream *s) { return give(s, (Op){FILL, (void *)(uintptr_t)to, 0, n, v, width}); }
R cuMemsetD8Async(P to, unsigned char v, size_t n, Stream *s) { return fill(to, v, n, 1, s); }
R cuMemsetD16Async(P to, unsigned short v, size_t n, Stream *s) { return fill(to, v, n, 2, s); }
R cuMemsetD32Async(P to, unsigned v, size_t n, Stream *s) { return fill(to, v, n, 4, s); }
R cuLaunchHostFunc(Stream *s, void (*call)(void *), void *data) { return give(s, (Op){HOST, .call = call, .data = data}); }

R cuStreamBeginCapture_v2(Stream *s, int mode) { CURRENT; if (s->recording) return CAPTURE; s->recording = calloc(1, sizeof(Graph)); live++; return OK; }
R cuStreamEndCapture(Stream *s, Graph **g) { CURRENT; if (!s->recording) return CAPTURE; *g = s->recording; s->recording = 0; return OK; }
R cuStreamIsCapturing(Stream *s, int *v) { *v = s && s->recording != 0; return OK; }
R cuGraphInstantiateWithFlags(Graph **e, Graph *g, unsigned long long f) {
    *e = malloc(sizeof **e);
    **e = *g;
    (*e)->ops = malloc((g->count + 1) * sizeof(Op));
    memcpy((*e)->ops, g->ops, g->count * sizeof(Op));
    live++;
    return OK;
}
R cuGraphLaunch(Graph *e, Stream *s) { int i; CURRENT; for (i = 0; i < e->count; i++) perform(&e->ops[i]); return OK; }
R cuGraphExecDestroy(Graph *e) { free(e->ops); free(e); live--; return OK; }
R cuGraphDestroy(Graph *g) { free(g->ops); free(g); live--; return OK; }

R cuGetErrorName(R e, const char **s) {
    *s = e == OOM ? "CUDA_ERROR_OUT_OF_MEMORY" : e == NO_DEVICE ? "CUDA_ERROR_NO_DEVICE" : e == CAPTURE ? "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED" : "CUDA_ERROR_MOCK";
    return OK;
}
R cuGetErrorString(R e, const char **s) { *s = e == NO_DEVICE ? "no CUDA-capable device is detected" : "an error of the mock"; return OK; }

R cuGetProcAddress_v2(const char *name, void **f, int version, unsigned long long flags, int *status) {
    static const char *suffixes[] = {"_v2", "WithFlags", ""};
    char full[128];
    int i;
    for (i = 0; i < 3; i++) {
        snprintf(full, sizeof full, "%s%s", name, suffixes[i]);
        if ((*f = dlsym(RTLD_DEFAULT, full)) != 0) break;
    }
    if (status) *status = *f ? 0 : 1;
    return *f ? OK : NOT_FOUND;
}
R cuGetProcAddress(const char *name, void **f, int version, unsigned long long flags) { return cuGetProcAddress_v2(name, f, version, flags, 0); }

/* What pycuda is linked against and edgeco does not use: it must be there, and says that it is not supported. */
#define ABSENT(name) R name(void) { return 801; }
ABSENT(cuArray3DCreate_v2) ABSENT(cuArray3DGetDescriptor_v2) ABSENT(cuArrayCreate_v2) ABSENT(cuArrayDestroy)
ABSENT(cuArrayGetDescriptor_v2) ABSENT(cuCtxAttach) ABSENT(cuCtxCreate_v2) ABSENT(cuCtxDetach)
ABSENT(cuCtxDisablePeerAccess) ABSENT(cuCtxEnablePeerAccess) ABSENT(cuCtxGetApiVersion) ABSENT(cuCtxGetCacheConfig)
ABSENT(cuCtxGetLimit) ABSENT(cuCtxGetSharedMemConfig) ABSENT(cuCtxSetCacheConfig) ABSENT(cuCtxSetLimit)
ABSENT(cuCtxSetSharedMemConfig) ABSENT(cuDeviceCanAccessPeer) ABSENT(cuDeviceGetByPCIBusId)
ABSENT(cuDeviceGetPCIBusId) ABSENT(cuEventQuery) ABSENT(cuFuncGetAttribute) ABSENT(cuFuncSetAttribute)
ABSENT(cuFuncSetBlockShape) ABSENT(cuFuncSetCacheConfig) ABSENT(cuFuncSetSharedSize) ABSENT(cuIpcCloseMemHandle)
ABSENT(cuIpcGetEventHandle) ABSENT(cuIpcGetMemHandle) ABSENT(cuIpcOpenEventHandle) ABSENT(cuIpcOpenMemHandle_v2)
ABSENT(cuLaunch) ABSENT(cuLaunchGrid) ABSENT(cuLaunchGridAsync) ABSENT(cuLaunchKernel) ABSENT(cuLinkAddData_v2)
ABSENT(cuLinkAddFile_v2) ABSENT(cuLinkComplete) ABSENT(cuLinkCreate_v2) ABSENT(cuLinkDestroy)
ABSENT(cuMemAllocManaged) ABSENT(cuMemAllocPitch_v2) ABSENT(cuMemGetAddressRange_v2)
ABSENT(cuMemHostGetDevicePointer_v2) ABSENT(cuMemHostGetFlags) ABSENT(cuMemHostRegister_v2)
ABSENT(cuMemHostUnregister) ABSENT(cuMemcpy2DAsync_v2) ABSENT(cuMemcpy2DUnaligned_v2) ABSENT(cuMemcpy2D_v2)
ABSENT(cuMemcpy3DAsync_v2) ABSENT(cuMemcpy3DPeer) ABSENT(cuMemcpy3DPeerAsync) ABSENT(cuMemcpy3D_v2)
ABSENT(cuMemcpyAtoA_v2) ABSENT(cuMemcpyAtoD_v2) ABSENT(cuMemcpyAtoH_v2) ABSENT(cuMemcpyDtoA_v2)
ABSENT(cuMemcpyDtoD_v2) ABSENT(cuMemcpyDtoH_v2) ABSENT(cuMemcpyHtoA_v2) ABSENT(cuMemcpyHtoD_v2) ABSENT(cuMemcpyPeer)
ABSENT(cuMemcpyPeerAsync) ABSENT(cuMemsetD16_v2) ABSENT(cuMemsetD2D16Async) ABSENT(cuMemsetD2D16_v2)
ABSENT(cuMemsetD2D32Async) ABSENT(cuMemsetD2D32_v2) ABSENT(cuMemsetD2D8Async) ABSENT(cuMemsetD2D8_v2)
ABSENT(cuMemsetD32_v2) ABSENT(cuMemsetD8_v2) ABSENT(cuModuleGetFunction) ABSENT(cuModuleGetGlobal_v2)
ABSENT(cuModuleGetSurfRef) ABSENT(cuModuleGetTexRef) ABSENT(cuModuleLoad) ABSENT(cuModuleLoadData)
ABSENT(cuModuleLoadDataEx) ABSENT(cuModuleUnload) ABSENT(cuParamSetSize) ABSENT(cuParamSetTexRef) ABSENT(cuParamSetf)
ABSENT(cuParamSeti) ABSENT(cuParamSetv) ABSENT(cuProfilerInitialize) ABSENT(cuProfilerStart) ABSENT(cuProfilerStop)
ABSENT(cuStreamAttachMemAsync) ABSENT(cuSurfRefGetArray) ABSENT(cuSurfRefSetArray) ABSENT(cuTexRefCreate)
ABSENT(cuTexRefDestroy) ABSENT(cuTexRefGetAddressMode) ABSENT(cuTexRefGetAddress_v2) ABSENT(cuTexRefGetArray)
ABSENT(cuTexRefGetFilterMode) ABSENT(cuTexRefGetFlags) ABSENT(cuTexRefGetFormat) ABSENT(cuTexRefSetAddress2D_v3)
ABSENT(cuTexRefSetAddressMode) ABSENT(cuTexRefSetAddress_v2) ABSENT(cuTexRefSetArray) ABSENT(cuTexRefSetFilterMode)
ABSENT(cuTexRefSetFlags) ABSENT(cuTexRefSetFormat)
