// A GPU that is not there: enough of CUDA's runtime, driver and profiling interface that the PyTorch which is installed
// runs on it unchanged. Preloaded, these functions shadow those of libcudart and libcupti; its soname is libcuda.so.1,
// so whoever opens the driver finds this as well. cuBLAS and cuDNN stand beside it (stand_in_libraries.cpp).
//
// Memory is address space, of which the system backs what somebody writes. A kernel writes nothing: results are zeros,
// or whatever lay there. What is real is everything around kernels: PyTorch's own caching allocator with the stream of
// requests that a network makes, its choice of kernels for an sm_90, streams, events, graph capture with what it forbids
// (a call that a capture does not allow fails as it does on a GPU), out of memory, and Kineto's joining of kernels to
// operators by correlation numbers.
//
// Time: a kernel starts some microseconds after its launch, behind what is queued on its stream, and takes as long as
// `duration` says, which is a fiction; events and synchronisation follow that clock.
//
// STAND_IN_NAME and STAND_IN_BYTES in the environment name the device and limit its memory; STAND_IN_FORGETFUL keeps
// the profiler from seeing any kernel.
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <cupti.h>
#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

using Nanoseconds = int64_t;

static std::recursive_mutex lock;
using Guard = std::lock_guard<std::recursive_mutex>;

static Nanoseconds now() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1'000'000'000ll + time.tv_nsec;
}

static void wait_until(Nanoseconds moment) {
  while (now() < moment) {}
}

static const char* setting(const char* name, const char* otherwise) {
  const char* value = getenv(name);
  return value && *value ? value : otherwise;
}

// ---------------------------------------------------------------------------------------------- errors

static thread_local cudaError_t last_error = cudaSuccess;

static cudaError_t failed(cudaError_t error) { return last_error = error; }

EXPORT cudaError_t cudaGetLastError() {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
EXPORT cudaError_t cudaPeekAtLastError() { return last_error; }
EXPORT const char* cudaGetErrorName(cudaError_t) { return "cudaError"; }
EXPORT const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated:
      return "operation failed due to a previous error during capture";
    case cudaErrorStreamCaptureIsolation:
      return "dependency created on uncaptured work in another stream";
    default: return "an error of the stand-in GPU";
  }
}

// ---------------------------------------------------------------------------------------------- the device

static const cudaDeviceProp& properties() {  // of an H100 SXM
  static const cudaDeviceProp found = [] {
    cudaDeviceProp p{};
    snprintf(p.name, sizeof p.name, "%s", setting("STAND_IN_NAME", "stand-in for a GPU"));
    memcpy(p.uuid.bytes, "stand-in for GPU", 16);
    p.totalGlobalMem = std::stoull(setting("STAND_IN_BYTES", "85029158912"));
    p.major = 9, p.minor = 0;
    p.multiProcessorCount = 132;
    p.l2CacheSize = 50 << 20;
    p.warpSize = 32;
    p.maxThreadsPerBlock = 1024, p.maxThreadsPerMultiProcessor = 2048, p.maxBlocksPerMultiProcessor = 32;
    p.maxThreadsDim[0] = p.maxThreadsDim[1] = 1024, p.maxThreadsDim[2] = 64;
    p.maxGridSize[0] = 0x7fffffff, p.maxGridSize[1] = p.maxGridSize[2] = 65535;
    p.regsPerBlock = p.regsPerMultiprocessor = 65536;
    p.sharedMemPerBlock = 49152, p.sharedMemPerBlockOptin = 232448, p.sharedMemPerMultiprocessor = 233472;
    p.reservedSharedMemPerBlock = 1024, p.totalConstMem = 65536;
    p.memoryBusWidth = 5120, p.textureAlignment = 512, p.texturePitchAlignment = 32, p.memPitch = 0x7fffffff;
    p.concurrentKernels = p.unifiedAddressing = p.managedMemory = p.cooperativeLaunch = p.asyncEngineCount = 1;
    p.streamPrioritiesSupported = p.canMapHostMemory = p.memoryPoolsSupported = 1;
    return p;
  }();
  return found;
}

EXPORT cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
EXPORT cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
EXPORT cudaError_t cudaSetDevice(int) { return cudaSuccess; }
EXPORT cudaError_t cudaGetDeviceProperties(cudaDeviceProp* found, int) { return *found = properties(), cudaSuccess; }
EXPORT cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  const cudaDeviceProp& p = properties();
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMaxBlockDimX: case cudaDevAttrMaxBlockDimY: *value = 1024; break;
    case cudaDevAttrMaxBlockDimZ: *value = 64; break;
    case cudaDevAttrMaxGridDimX: *value = p.maxGridSize[0]; break;
    case cudaDevAttrMaxGridDimY: case cudaDevAttrMaxGridDimZ: *value = p.maxGridSize[1]; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = p.sharedMemPerBlock; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = p.sharedMemPerBlockOptin; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = p.sharedMemPerMultiprocessor; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = p.reservedSharedMemPerBlock; break;
    case cudaDevAttrMaxRegistersPerBlock: case cudaDevAttrMaxRegistersPerMultiprocessor: *value = p.regsPerBlock; break;
    case cudaDevAttrWarpSize: *value = p.warpSize; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = p.maxThreadsPerMultiProcessor; break;
    case cudaDevAttrMaxBlocksPerMultiprocessor: *value = p.maxBlocksPerMultiProcessor; break;
    case cudaDevAttrL2CacheSize: *value = p.l2CacheSize; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrClockRate: *value = 1'980'000; break;
    case cudaDevAttrCooperativeLaunch: case cudaDevAttrUnifiedAddressing: *value = 1; break;
    default: *value = 0;
  }
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetPCIBusId(char* id, int size, int) {
  return snprintf(id, size, "0000:00:00.0"), cudaSuccess;
}
EXPORT cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) { return *can = 0, cudaSuccess; }
EXPORT cudaError_t cudaDriverGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
EXPORT cudaError_t cudaRuntimeGetVersion(int* version) { return *version = CUDART_VERSION, cudaSuccess; }
EXPORT cudaError_t cudaProfilerStart() { return cudaSuccess; }
EXPORT cudaError_t cudaProfilerStop() { return cudaSuccess; }

// ---------------------------------------------------------------------------------------------- streams, capture

struct Node { std::string name; Nanoseconds duration; };
struct Graph { std::vector<Node> nodes; bool invalid = false; };
struct Stream { Nanoseconds free_at = 0; Graph* capture = nullptr; unsigned number = 0; int priority = 0; };
struct Event { Nanoseconds at = 0; Graph* capture = nullptr; };

static Stream legacy_stream{0, nullptr, 7, 0};
static std::vector<Stream*> streams{&legacy_stream};
static Graph* capturing = nullptr;  // one at a time is enough
static cudaStreamCaptureMode capture_mode;
static thread_local cudaStreamCaptureMode thread_mode = cudaStreamCaptureModeGlobal;

static Stream& at(cudaStream_t stream) {
  return stream <= cudaStreamPerThread ? legacy_stream : *reinterpret_cast<Stream*>(stream);
}
static Event& at(cudaEvent_t event) { return *reinterpret_cast<Event*>(event); }

// A call that a capture in global mode forbids on every thread that has not asked for another mode.
static bool unsafe() {
  return capturing && capture_mode == cudaStreamCaptureModeGlobal && thread_mode == cudaStreamCaptureModeGlobal;
}
static cudaError_t forbidden() {
  capturing->invalid = true;
  return failed(cudaErrorStreamCaptureUnsupported);
}

EXPORT cudaError_t cudaStreamCreateWithPriority(cudaStream_t* made, unsigned, int priority) {
  Guard guard(lock);
  auto* stream = new Stream{0, nullptr, unsigned(streams.size()) + 7, priority};
  streams.push_back(stream);
  return *made = reinterpret_cast<cudaStream_t>(stream), cudaSuccess;
}
EXPORT cudaError_t cudaStreamCreateWithFlags(cudaStream_t* made, unsigned flags) {
  return cudaStreamCreateWithPriority(made, flags, 0);
}
EXPORT cudaError_t cudaStreamCreate(cudaStream_t* made) { return cudaStreamCreateWithPriority(made, 0, 0); }
EXPORT cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }
EXPORT cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* value) {
  return *value = at(stream).priority, cudaSuccess;
}
EXPORT cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -5, cudaSuccess;
}
EXPORT cudaError_t cudaStreamQuery(cudaStream_t stream) {
  if (at(stream).capture || unsafe()) return forbidden();
  return now() < at(stream).free_at ? cudaErrorNotReady : cudaSuccess;
}
EXPORT cudaError_t cudaEventCreateWithFlags(cudaEvent_t* made, unsigned) {
  return *made = reinterpret_cast<cudaEvent_t>(new Event), cudaSuccess;
}
EXPORT cudaError_t cudaEventCreate(cudaEvent_t* made) { return cudaEventCreateWithFlags(made, 0); }
EXPORT cudaError_t cudaEventDestroy(cudaEvent_t event) { return delete &at(event), cudaSuccess; }
EXPORT cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  at(event) = {std::max(now(), at(stream).free_at), at(stream).capture};
  return cudaSuccess;
}
EXPORT cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t stream, unsigned) {
  return cudaEventRecord(event, stream);
}
EXPORT cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (unsafe()) return forbidden();
  return now() < at(event).at ? cudaErrorNotReady : cudaSuccess;
}
EXPORT cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (unsafe()) return forbidden();
  return wait_until(at(event).at), cudaSuccess;
}
EXPORT cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return *milliseconds = (at(end).at - at(start).at) / 1e6f, cudaSuccess;
}
EXPORT cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Stream& waiting = at(stream);
  if (waiting.capture && !at(event).capture) {
    waiting.capture->invalid = true;
    return failed(cudaErrorStreamCaptureIsolation);
  }
  if (at(event).capture && at(event).capture == capturing) waiting.capture = capturing;  // it joins
  waiting.free_at = std::max(waiting.free_at, at(event).at);
  return cudaSuccess;
}

EXPORT cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  return std::swap(*mode, thread_mode), cudaSuccess;
}
EXPORT cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  if (capturing || &at(stream) == &legacy_stream) return failed(cudaErrorStreamCaptureUnsupported);
  capturing = at(stream).capture = new Graph;
  return capture_mode = mode, cudaSuccess;
}
EXPORT cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t* graph) {
  Graph* made = capturing;
  capturing = nullptr;
  for (Stream* stream : streams) stream->capture = nullptr;
  *graph = made && !made->invalid ? reinterpret_cast<cudaGraph_t>(made) : nullptr;
  return *graph ? cudaSuccess : failed(cudaErrorStreamCaptureInvalidated);
}
static cudaStreamCaptureStatus capture_status(cudaStream_t stream) {
  const Graph* graph = at(stream).capture;
  return !graph            ? cudaStreamCaptureStatusNone
         : graph->invalid ? cudaStreamCaptureStatusInvalidated
                          : cudaStreamCaptureStatusActive;
}
EXPORT cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return *status = capture_status(stream), cudaSuccess;
}
EXPORT cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t stream, cudaStreamCaptureStatus* status, unsigned long long* id, cudaGraph_t* graph,
    const cudaGraphNode_t** before, const cudaGraphEdgeData** edges, size_t* count) {
  *status = capture_status(stream);
  if (id) *id = *status == cudaStreamCaptureStatusActive;
  if (graph) *graph = reinterpret_cast<cudaGraph_t>(at(stream).capture);
  if (before) *before = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}
EXPORT cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  return *count = reinterpret_cast<Graph*>(graph)->nodes.size(), cudaSuccess;
}
EXPORT cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  return *made = reinterpret_cast<cudaGraphExec_t>(new Graph(*reinterpret_cast<Graph*>(graph))), cudaSuccess;
}
EXPORT cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return delete reinterpret_cast<Graph*>(graph), cudaSuccess; }
EXPORT cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return delete reinterpret_cast<Graph*>(graph), cudaSuccess;
}

// ---------------------------------------------------------------------------------------------- the profiler's view

struct Seen {  // one call on the host, and the kernel that it asked for, if it did
  uint32_t call, correlation, thread, stream;
  Nanoseconds called, returned, start, end;
  CUpti_ActivityKind kind;  // of what ran on the device; CUPTI_ACTIVITY_KIND_INVALID for nothing
  const char* name;
  uint64_t bytes, outside[2];  // the numbers that the profiler pushed: of the operator, of the annotation
};

static std::vector<Seen> seen;
static bool watched = false;
static std::atomic<uint32_t> correlations{1};
static thread_local std::vector<uint64_t> outside[2];
static CUpti_BuffersCallbackRequestFunc request_buffer;
static CUpti_BuffersCallbackCompleteFunc complete_buffer;
static CUpti_TimestampCallbackFunc profiler_clock;
static uint8_t* buffer = nullptr;  // the profiler's, which the next records go to
static size_t buffer_size = 0, buffer_used = 0;
static Nanoseconds watched_since;
static uint64_t ticks_since;

static void ask_for_buffer() {
  size_t most = 0;
  buffer_used = 0;
  request_buffer(&buffer, &buffer_size, &most);
}
static void hand_buffer_over() {
  if (buffer) complete_buffer(nullptr, 0, buffer, buffer_size, buffer_used);
  buffer = nullptr;
}

static const char* kept(const std::string& name) {
  static std::map<std::string, int> names;
  return names.emplace(name, 0).first->first.c_str();
}

static void note(
    uint32_t call, Nanoseconds called, CUpti_ActivityKind kind, const std::string& name, const Stream& stream,
    Nanoseconds start, Nanoseconds end, uint64_t bytes = 0) {
  Guard guard(lock);
  if (!watched) return;
  if (!buffer) ask_for_buffer();  // with the first record: who has given no buffer does not ask what is in it
  uint64_t numbers[2];
  for (int i : {0, 1}) numbers[i] = outside[i].empty() ? 0 : outside[i].back();
  seen.push_back({call, correlations++, uint32_t(pthread_self()), stream.number, called, now(), start, end, kind,
                  kept(name), bytes, {numbers[0], numbers[1]}});
}

static const Nanoseconds LATENCY = 3'000;  // from the launch to the kernel's start

static const char* const NO_NAME = "";

// Queue work on a stream, or put it into the graph that is being captured there.
static cudaError_t enqueue(
    uint32_t call, CUpti_ActivityKind kind, const std::string& name, cudaStream_t on, Nanoseconds duration,
    uint64_t bytes = 0) {
  Nanoseconds called = now();
  Stream& stream = at(on);
  if (stream.capture) {
    stream.capture->nodes.push_back({name, duration});
    note(call, called, CUPTI_ACTIVITY_KIND_INVALID, NO_NAME, stream, 0, 0);
    return cudaSuccess;
  }
  Nanoseconds start = std::max(called + LATENCY, stream.free_at);
  stream.free_at = start + duration;
  note(call, called, kind, name, stream, start, stream.free_at, bytes);
  return cudaSuccess;
}

// What stand_in_libraries.cpp calls: cuBLAS and cuDNN launch kernels of their own.
EXPORT void stand_in_launch(const char* name, cudaStream_t stream, int64_t nanoseconds) {
  enqueue(CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, name, stream,
          nanoseconds);
}

EXPORT cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t on) {
  Nanoseconds called = now(), duration = 0;
  for (const Node& node : reinterpret_cast<Graph*>(graph)->nodes) duration += node.duration;
  Stream& stream = at(on);
  Nanoseconds start = std::max(called + LATENCY, stream.free_at);
  stream.free_at = start + duration;
  note(CUPTI_RUNTIME_TRACE_CBID_cudaGraphLaunch_v10000, called, CUPTI_ACTIVITY_KIND_INVALID, NO_NAME, stream, 0, 0);
  return cudaSuccess;
}
EXPORT cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (at(stream).capture || unsafe()) return forbidden();
  Nanoseconds called = now();
  wait_until(at(stream).free_at);
  note(CUPTI_RUNTIME_TRACE_CBID_cudaStreamSynchronize_v3020, called, CUPTI_ACTIVITY_KIND_INVALID, NO_NAME, at(stream),
       0, 0);
  return cudaSuccess;
}
EXPORT cudaError_t cudaDeviceSynchronize() {
  if (capturing) return forbidden();
  Nanoseconds called = now();
  for (size_t i = 0; i < streams.size(); ++i) wait_until(streams[i]->free_at);
  note(CUPTI_RUNTIME_TRACE_CBID_cudaDeviceSynchronize_v3020, called, CUPTI_ACTIVITY_KIND_INVALID, NO_NAME,
       legacy_stream, 0, 0);
  return cudaSuccess;
}

EXPORT CUptiResult cuptiGetVersion(uint32_t* version) { return *version = CUPTI_API_VERSION, CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiGetResultString(CUptiResult, const char** text) { return *text = "CUPTI", CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiSubscribe(CUpti_SubscriberHandle* made, CUpti_CallbackFunc, void*) {
  return *made = reinterpret_cast<CUpti_SubscriberHandle>(&seen), CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiUnsubscribe(CUpti_SubscriberHandle) { return CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiEnableCallback(uint32_t, CUpti_SubscriberHandle, CUpti_CallbackDomain, CUpti_CallbackId) {
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiEnableDomain(uint32_t, CUpti_SubscriberHandle, CUpti_CallbackDomain) { return CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiFinalize() { return CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiActivitySetAttribute(CUpti_ActivityAttribute, size_t*, void*) { return CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiActivityEnableRuntimeApi(CUpti_CallbackId, uint8_t) { return CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiActivityEnableDriverApi(CUpti_CallbackId, uint8_t) { return CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiActivityEnableCudaEventDeviceTimestamps(uint8_t) { return CUPTI_SUCCESS; }
EXPORT CUptiResult cuptiActivityGetNumDroppedRecords(CUcontext, uint32_t, size_t* count) {
  return *count = 0, CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityRegisterCallbacks(
    CUpti_BuffersCallbackRequestFunc request, CUpti_BuffersCallbackCompleteFunc complete) {
  return request_buffer = request, complete_buffer = complete, CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityRegisterTimestampCallback(CUpti_TimestampCallbackFunc clock) {
  return profiler_clock = clock, CUPTI_SUCCESS;
}
static uint64_t ticks() {
  timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return profiler_clock ? profiler_clock() : time.tv_sec * 1'000'000'000ull + time.tv_nsec;
}
EXPORT CUptiResult cuptiActivityEnable(CUpti_ActivityKind kind) {
  if (kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL && !*setting("STAND_IN_FORGETFUL", "")) {
    watched = true, watched_since = now(), ticks_since = ticks();
  }
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityDisable(CUpti_ActivityKind kind) {
  if (kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) watched = false;
  return CUPTI_SUCCESS;
}
static std::vector<uint64_t>* pushed(CUpti_ExternalCorrelationKind kind) {
  int index = int(kind) - CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0;
  return index == 0 || index == 1 ? &outside[index] : nullptr;
}
EXPORT CUptiResult cuptiActivityPushExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t id) {
  if (auto* stack = pushed(kind)) stack->push_back(id);
  return CUPTI_SUCCESS;
}
EXPORT CUptiResult cuptiActivityPopExternalCorrelationId(CUpti_ExternalCorrelationKind kind, uint64_t* id) {
  auto* stack = pushed(kind);
  if (!stack || stack->empty()) return CUPTI_ERROR_QUEUE_EMPTY;
  if (id) *id = stack->back();
  return stack->pop_back(), CUPTI_SUCCESS;
}

// Records lie in a buffer in slots of one size: whoever reads them asks here for the next.
static const size_t SLOT = 256;
static_assert(sizeof(CUpti_ActivityKernel10) <= SLOT && sizeof(CUpti_ActivityMemcpy6) <= SLOT);

EXPORT CUptiResult cuptiActivityGetNextRecord(uint8_t* buffer, size_t size, CUpti_Activity** record) {
  uint8_t* next = *record ? reinterpret_cast<uint8_t*>(*record) + SLOT : buffer;
  if (next + SLOT > buffer + size) return CUPTI_ERROR_MAX_LIMIT_REACHED;
  return *record = reinterpret_cast<CUpti_Activity*>(next), CUPTI_SUCCESS;
}

template <class Record>
static void write(const Record& record) {
  if (buffer && buffer_used + SLOT > buffer_size) hand_buffer_over();
  if (!buffer) ask_for_buffer();
  memcpy(buffer + buffer_used, &record, sizeof record);
  buffer_used += SLOT;
}

EXPORT CUptiResult cuptiActivityFlushAll(uint32_t) {
  std::vector<Seen> all;
  {
    Guard guard(lock);
    all.swap(seen);
  }
  if (all.empty() || !request_buffer) return CUPTI_SUCCESS;
  double rate = double(ticks() - ticks_since) / double(now() - watched_since);
  auto stamp = [&](Nanoseconds moment) { return ticks_since + int64_t((moment - watched_since) * rate); };
  for (const Seen& each : all) {
    for (int i : {0, 1}) {
      if (!each.outside[i]) continue;
      CUpti_ActivityExternalCorrelation record{};
      record.kind = CUPTI_ACTIVITY_KIND_EXTERNAL_CORRELATION;
      record.externalKind = CUpti_ExternalCorrelationKind(CUPTI_EXTERNAL_CORRELATION_KIND_CUSTOM0 + i);
      record.externalId = each.outside[i], record.correlationId = each.correlation;
      write(record);
    }
    CUpti_ActivityAPI call{};
    call.kind = CUPTI_ACTIVITY_KIND_RUNTIME, call.cbid = each.call;
    call.start = stamp(each.called), call.end = stamp(each.returned);
    call.processId = getpid(), call.threadId = each.thread, call.correlationId = each.correlation;
    write(call);
    auto place = [&](auto& record) {
      record.start = stamp(each.start), record.end = stamp(each.end);
      record.contextId = 1, record.streamId = each.stream, record.correlationId = each.correlation;
    };
    if (each.kind == CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) {
      CUpti_ActivityKernel10 record{};
      record.kind = each.kind, record.name = each.name;
      record.gridX = record.gridY = record.gridZ = record.blockX = record.blockY = record.blockZ = 1;
      place(record);
      write(record);
    } else if (each.kind == CUPTI_ACTIVITY_KIND_MEMCPY) {
      CUpti_ActivityMemcpy6 record{};
      record.kind = each.kind, record.bytes = each.bytes;
      record.copyKind = CUPTI_ACTIVITY_MEMCPY_KIND_HTOD;
      record.srcKind = CUPTI_ACTIVITY_MEMORY_KIND_PAGEABLE, record.dstKind = CUPTI_ACTIVITY_MEMORY_KIND_DEVICE;
      place(record);
      write(record);
    } else if (each.kind == CUPTI_ACTIVITY_KIND_MEMSET) {
      CUpti_ActivityMemset4 record{};
      record.kind = each.kind, record.bytes = each.bytes;
      place(record);
      write(record);
    }
  }
  hand_buffer_over();
  return CUPTI_SUCCESS;
}

// ---------------------------------------------------------------------------------------------- memory

static const size_t SPACE = size_t(1) << 43;  // addresses are never used twice, as the allocator might notice
static const size_t CONTEXT = size_t(500) << 20;
static size_t used = CONTEXT;
static char *space = nullptr, *next_address = nullptr;
static std::map<void*, size_t> given;

static bool on_device(const void* pointer) { return space && pointer >= space && pointer < space + SPACE; }

EXPORT cudaError_t cudaMalloc(void** pointer, size_t size) {
  if (unsafe()) return forbidden();
  Guard guard(lock);
  if (!space) {
    void* found = mmap(nullptr, SPACE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (found == MAP_FAILED) return perror("stand-in GPU: no address space"), abort(), cudaErrorMemoryAllocation;
    next_address = space = reinterpret_cast<char*>((uintptr_t(found) + (2 << 20) - 1) & ~uintptr_t((2 << 20) - 1));
  }
  *pointer = nullptr;
  if (size > properties().totalGlobalMem - used) return failed(cudaErrorMemoryAllocation);
  *pointer = next_address;
  next_address += (size + (2 << 20) - 1) & ~size_t((2 << 20) - 1);
  used += size, given[*pointer] = size;
  return cudaSuccess;
}
EXPORT cudaError_t cudaFree(void* pointer) {
  if (unsafe()) return forbidden();
  Guard guard(lock);
  if (!pointer) return cudaSuccess;
  madvise(pointer, given[pointer], MADV_DONTNEED);
  used -= given[pointer], given.erase(pointer);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return *total = properties().totalGlobalMem, *free = *total - used, cudaSuccess;
}
EXPORT cudaError_t cudaHostAlloc(void** pointer, size_t size, unsigned) {
  return *pointer = aligned_alloc(4096, (size + 4095) & ~size_t(4095)), cudaSuccess;
}
EXPORT cudaError_t cudaFreeHost(void* pointer) { return free(pointer), cudaSuccess; }
EXPORT cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* found, const void* pointer) {
  *found = cudaPointerAttributes{};
  found->type = on_device(pointer) ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered;
  found->devicePointer = on_device(pointer) ? const_cast<void*>(pointer) : nullptr;
  found->hostPointer = on_device(pointer) ? nullptr : const_cast<void*>(pointer);
  return cudaSuccess;
}

static const size_t COPIED = 1 << 20;  // what is larger is not copied onto the device: nobody reads it there

static Nanoseconds moving(size_t bytes) { return 1'000 + bytes / 2'000; }  // 2 TB/s

static void copy(void* to, const void* from, size_t size) {
  if (!on_device(to) || size <= COPIED) memmove(to, from, size);
}
EXPORT cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind, cudaStream_t stream) {
  enqueue(CUPTI_RUNTIME_TRACE_CBID_cudaMemcpyAsync_v3020, CUPTI_ACTIVITY_KIND_MEMCPY, NO_NAME, stream, moving(size),
          size);
  if (!on_device(to)) wait_until(at(stream).free_at);
  return copy(to, from, size), cudaSuccess;
}
EXPORT cudaError_t cudaMemcpy(void* to, const void* from, size_t size, cudaMemcpyKind kind) {
  if (unsafe()) return forbidden();
  return cudaMemcpyAsync(to, from, size, kind, nullptr), cudaStreamSynchronize(nullptr);
}
EXPORT cudaError_t cudaMemsetAsync(void* pointer, int value, size_t size, cudaStream_t stream) {
  enqueue(CUPTI_RUNTIME_TRACE_CBID_cudaMemsetAsync_v3020, CUPTI_ACTIVITY_KIND_MEMSET, NO_NAME, stream, moving(size),
          size);
  if (size <= COPIED) memset(pointer, value, size);
  return cudaSuccess;
}
EXPORT cudaError_t cudaMemset(void* pointer, int value, size_t size) {
  return cudaMemsetAsync(pointer, value, size, nullptr);
}
EXPORT cudaError_t cudaMemcpyToSymbol(const void*, const void*, size_t, size_t, cudaMemcpyKind) { return cudaSuccess; }
EXPORT cudaError_t cudaGetSymbolAddress(void** pointer, const void*) { return cudaMalloc(pointer, 4096); }
EXPORT cudaError_t cudaLaunchHostFunc(cudaStream_t, cudaHostFn_t call, void* data) { return call(data), cudaSuccess; }

// ---------------------------------------------------------------------------------------------- kernels

static std::map<const void*, std::string>& kernel_names() {
  static auto* names = new std::map<const void*, std::string>;  // used before main, and after it
  return *names;
}
struct Configuration { dim3 grid, block; size_t shared; cudaStream_t stream; };
static thread_local std::vector<Configuration> configurations;

EXPORT void** __cudaRegisterFatBinary(void* binary) { return new void*(binary); }
EXPORT void __cudaRegisterFatBinaryEnd(void**) {}
EXPORT void __cudaUnregisterFatBinary(void**) {}
EXPORT char __cudaInitModule(void**) { return 1; }
EXPORT void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EXPORT void __cudaRegisterFunction(
    void**, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*, int*) {
  kernel_names()[host] = name;
}
EXPORT unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  return configurations.push_back({grid, block, shared, stream}), 0;
}
EXPORT cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  Configuration top = configurations.back();
  configurations.pop_back();
  *grid = top.grid, *block = top.block, *shared = top.shared, *static_cast<cudaStream_t*>(stream) = top.stream;
  return cudaSuccess;
}

static Nanoseconds duration(const std::string& name, dim3 grid, void** arguments) {
  if (name.find("spin_kernel") != std::string::npos) return **reinterpret_cast<int64_t**>(arguments) / 2;  // at 2 GHz
  return 1'500 + int64_t(grid.x) * grid.y * grid.z / 2;
}
static cudaError_t launch(uint32_t call, const void* function, dim3 grid, void** arguments, cudaStream_t stream) {
  auto found = kernel_names().find(function);
  const std::string name = found == kernel_names().end() ? "kernel" : found->second;
  return enqueue(call, CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL, name, stream, duration(name, grid, arguments));
}
EXPORT cudaError_t cudaLaunchKernel(
    const void* function, dim3 grid, dim3, void** arguments, size_t, cudaStream_t stream) {
  return launch(CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, function, grid, arguments, stream);
}
EXPORT cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* function) {
  return *kernel = static_cast<cudaKernel_t>(const_cast<void*>(function)), cudaSuccess;
}
EXPORT cudaError_t __cudaLaunchKernel(
    cudaKernel_t kernel, dim3 grid, dim3, void** arguments, size_t, cudaStream_t stream) {
  return launch(CUPTI_RUNTIME_TRACE_CBID___cudaLaunchKernel_v13000, kernel, grid, arguments, stream);
}
EXPORT cudaError_t cudaLaunchCooperativeKernel(
    const void* function, dim3 grid, dim3, void** arguments, size_t, cudaStream_t stream) {
  return launch(CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernel_v7000, function, grid, arguments, stream);
}
EXPORT cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* how, const void* function, void** arguments) {
  return launch(CUPTI_RUNTIME_TRACE_CBID_cudaLaunchKernelExC_v11060, function, how->gridDim, arguments, how->stream);
}
EXPORT cudaError_t cudaFuncSetAttribute(const void*, cudaFuncAttribute, int) { return cudaSuccess; }
EXPORT cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* found, const void*) {
  *found = cudaFuncAttributes{};
  found->binaryVersion = found->ptxVersion = 90;
  found->maxThreadsPerBlock = 1024, found->numRegs = 32;
  return cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* count, const void*, int, size_t) {
  return *count = 2, cudaSuccess;
}
EXPORT cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* count, const void*, int, size_t, unsigned) {
  return *count = 2, cudaSuccess;
}

// ---------------------------------------------------------------------------------------------- the driver

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice, unsigned* flags, int* active) {
  return *flags = 0, *active = 1, CUDA_SUCCESS;
}
EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice) {
  return *context = reinterpret_cast<CUcontext>(&legacy_stream), CUDA_SUCCESS;
}
EXPORT CUresult cuCtxGetCurrent(CUcontext* context) { return cuDevicePrimaryCtxRetain(context, 0); }
EXPORT CUresult cuCtxSetCurrent(CUcontext) { return CUDA_SUCCESS; }
EXPORT CUresult cuCtxGetDevice(CUdevice* device) { return *device = 0, CUDA_SUCCESS; }
EXPORT CUresult cuCtxGetLimit(size_t* value, CUlimit) { return *value = 1 << 20, CUDA_SUCCESS; }
EXPORT CUresult cuCtxSetLimit(CUlimit, size_t) { return CUDA_SUCCESS; }
EXPORT CUresult cuDriverGetVersion(int* version) { return *version = CUDA_VERSION, CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGet(CUdevice* device, int) { return *device = 0, CUDA_SUCCESS; }
EXPORT CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  return CUresult(cudaDeviceGetAttribute(value, cudaDeviceAttr(attribute), device));  // they share their numbers
}
EXPORT CUresult cuGetErrorString(CUresult, const char** text) { return *text = "not on a stand-in", CUDA_SUCCESS; }
EXPORT CUresult cuPointerGetAttribute(void* value, CUpointer_attribute, CUdeviceptr) {
  return *static_cast<int*>(value) = 0, CUDA_SUCCESS;
}

static CUresult unsupported(...) { return CUDA_ERROR_NOT_SUPPORTED; }

EXPORT cudaError_t cudaGetDriverEntryPointByVersion(
    const char* name, void** function, unsigned, unsigned long long, cudaDriverEntryPointQueryResult* result) {
  void* found = dlsym(RTLD_DEFAULT, name);
  *function = found ? found : reinterpret_cast<void*>(unsupported);
  if (result) *result = cudaDriverEntryPointSuccess;
  return cudaSuccess;
}
