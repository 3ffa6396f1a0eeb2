// cuBLAS and cuDNN over the stand-in GPU: handles that know their stream, descriptors that remember what they are told,
// and products and convolutions that are one kernel each and compute nothing.
//
// Most functions have a handle first and otherwise only arguments that do not matter here. They are defined without the
// libraries' headers as variadic ones, which on x86-64 may be called as what they are declared there.
//
// What a library chooses is a fiction: cuDNN offers one engine for everything, which needs STAND_IN_CUDNN_WORKSPACE bytes
// (0 if not set), and a batch normalisation's reserve has STAND_IN_CUDNN_RESERVE bytes (0 if not set).
#include <cudnn_graph.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <vector>

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void stand_in_launch(const char* name, cudaStream_t stream, int64_t nanoseconds);

static size_t bytes(const char* name) {
  const char* value = getenv(name);
  return value ? strtoull(value, nullptr, 10) : 0;
}

struct Handle { cudaStream_t stream = nullptr; int mode = 0, pointer_mode = 0; };

static const int64_t DURATION = 10'000;

// A kernel of a library on its handle's stream.
#define KERNEL(name) \
  EXPORT int name(Handle* handle, ...) { return stand_in_launch(#name, handle->stream, DURATION), 0; }
// Nothing at all.
#define QUIET(name) \
  EXPORT int name(...) { return 0; }
// Makes something that is only ever handed back.
#define CREATES(name) \
  EXPORT int name(void** made, ...) { return *made = calloc(1, 4096), 0; }

// ---------------------------------------------------------------------------------------------- cuBLAS

EXPORT int cublasCreate_v2(Handle** handle) { return *handle = new Handle, 0; }
EXPORT int cublasDestroy_v2(Handle* handle) { return delete handle, 0; }
EXPORT int cublasSetStream_v2(Handle* handle, cudaStream_t stream) { return handle->stream = stream, 0; }
EXPORT int cublasSetMathMode(Handle* handle, int mode) { return handle->mode = mode, 0; }
EXPORT int cublasGetMathMode(Handle* handle, int* mode) { return *mode = handle->mode, 0; }
EXPORT int cublasSetPointerMode_v2(Handle* handle, int mode) { return handle->pointer_mode = mode, 0; }
EXPORT int cublasGetPointerMode_v2(Handle* handle, int* mode) { return *mode = handle->pointer_mode, 0; }
QUIET(cublasSetWorkspace_v2)
QUIET(cublasSetSmCountTarget)
KERNEL(cublasSgemm_v2)
KERNEL(cublasDgemm_v2)
KERNEL(cublasSgemmEx)
KERNEL(cublasGemmEx)
KERNEL(cublasSgemmStridedBatched)
KERNEL(cublasDgemmStridedBatched)
KERNEL(cublasGemmStridedBatchedEx)
KERNEL(cublasSgemmBatched)
KERNEL(cublasDgemmBatched)
KERNEL(cublasSgemv_v2)
KERNEL(cublasDgemv_v2)
KERNEL(cublasSdot_v2)
KERNEL(cublasDdot_v2)
KERNEL(cublasDotEx)

EXPORT size_t cublasLtGetVersion() { return 130'000; }
CREATES(cublasLtCreate)
CREATES(cublasLtMatmulDescCreate)
CREATES(cublasLtMatmulPreferenceCreate)
CREATES(cublasLtMatrixLayoutCreate)
EXPORT int cublasLtMatmulDescDestroy(void* made) { return free(made), 0; }
EXPORT int cublasLtMatmulPreferenceDestroy(void* made) { return free(made), 0; }
EXPORT int cublasLtMatrixLayoutDestroy(void* made) { return free(made), 0; }
QUIET(cublasLtMatmulDescSetAttribute)
QUIET(cublasLtMatmulPreferenceSetAttribute)
QUIET(cublasLtMatrixLayoutSetAttribute)
EXPORT int cublasLtMatmulAlgoGetHeuristic(
    void*, void*, void*, void*, void*, void*, void*, int, void* result, int* count) {
  return memset(result, 0, 64), *count = 1, 0;  // an algorithm without workspace
}
EXPORT int cublasLtMatmul(
    void*, void*, const void*, const void*, void*, const void*, void*, const void*, const void*, void*, void*, void*,
    const void*, void*, size_t, cudaStream_t stream) {
  return stand_in_launch("cublasLtMatmul", stream, DURATION), 0;
}

// ---------------------------------------------------------------------------------------------- cuDNN

EXPORT size_t cudnnGetVersion() { return CUDNN_VERSION; }
EXPORT size_t cudnnGetCudartVersion() { return 13'000; }
EXPORT const char* cudnnGetErrorString(cudnnStatus_t) { return "an error of the stand-in cuDNN"; }
EXPORT void cudnnGetLastErrorString(char* text, size_t size) { strncpy(text, "the stand-in's", size); }
EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t* handle) {
  return *handle = reinterpret_cast<cudnnHandle_t>(new Handle), CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  return reinterpret_cast<Handle*>(handle)->stream = stream, CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnGetStream(cudnnHandle_t handle, cudaStream_t* stream) {
  return *stream = reinterpret_cast<Handle*>(handle)->stream, CUDNN_STATUS_SUCCESS;
}

// The backend: descriptors are tables of attributes.

struct Attribute { cudnnBackendAttributeType_t type; int64_t count; std::vector<char> data; };
struct Descriptor { cudnnBackendDescriptorType_t type; std::map<int, Attribute> attributes; };

static Descriptor* as_descriptor(const void* pointer) {
  return static_cast<Descriptor*>(const_cast<void*>(pointer));
}

static size_t element_size(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_HANDLE: case CUDNN_TYPE_INT64: case CUDNN_TYPE_DOUBLE: case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: case CUDNN_TYPE_FRACTION: return 8;
    case CUDNN_TYPE_BOOLEAN: case CUDNN_TYPE_CHAR: return 1;
    default: return 4;
  }
}

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t* made) {
  return *made = new Descriptor{type, {}}, CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t descriptor) {
  return delete as_descriptor(descriptor), CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t) { return CUDNN_STATUS_SUCCESS; }
EXPORT cudnnStatus_t cudnnBackendSetAttribute(
    cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
    int64_t count, const void* data) {
  const char* start = static_cast<const char*>(data);
  as_descriptor(descriptor)->attributes[name] = {type, count, {start, start + count * element_size(type)}};
  return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendGetAttribute(
    const cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
    int64_t most, int64_t* count, void* data) {
  auto& attributes = as_descriptor(descriptor)->attributes;
  auto found = attributes.find(name);
  int64_t there = 0;
  if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS || name == CUDNN_ATTR_ENGINECFG_ENGINE) {
    there = 1;  // the caller made the descriptor; as it is, it will do
  } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    there = 1;
    if (most > 0) *static_cast<int64_t*>(data) = bytes("STAND_IN_CUDNN_WORKSPACE");
  } else if (name == CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT || name == CUDNN_ATTR_ENGINE_GLOBAL_INDEX) {
    there = 1;
    if (most > 0) *static_cast<int64_t*>(data) = name == CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT;
  } else if (found != attributes.end()) {
    there = found->second.count;
    if (most > 0 && data) memcpy(data, found->second.data.data(), std::min(most, there) * element_size(type));
  }
  if (count) *count = there;
  return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t, cudnnBackendDescriptor_t) {
  stand_in_launch("cudnn engine", reinterpret_cast<Handle*>(handle)->stream, DURATION);
  return CUDNN_STATUS_SUCCESS;
}

// The older interface: descriptors that nobody reads.

CREATES(cudnnCreateTensorDescriptor)
CREATES(cudnnCreateFilterDescriptor)
CREATES(cudnnCreateConvolutionDescriptor)
CREATES(cudnnCreateActivationDescriptor)
CREATES(cudnnCreatePoolingDescriptor)
CREATES(cudnnCreateDropoutDescriptor)
EXPORT int cudnnDestroyTensorDescriptor(void* made) { return free(made), 0; }
EXPORT int cudnnDestroyFilterDescriptor(void* made) { return free(made), 0; }
EXPORT int cudnnDestroyConvolutionDescriptor(void* made) { return free(made), 0; }
EXPORT int cudnnDestroyActivationDescriptor(void* made) { return free(made), 0; }
EXPORT int cudnnDestroyDropoutDescriptor(void* made) { return free(made), 0; }
QUIET(cudnnSetTensorNdDescriptor)
QUIET(cudnnSetFilterNdDescriptor)
QUIET(cudnnSetConvolutionNdDescriptor)
QUIET(cudnnSetConvolutionGroupCount)
QUIET(cudnnSetConvolutionMathType)
QUIET(cudnnSetActivationDescriptor)
QUIET(cudnnSetPooling2dDescriptor)
KERNEL(cudnnPoolingForward)
KERNEL(cudnnBatchNormalizationForwardTrainingEx)
KERNEL(cudnnBatchNormalizationForwardInference)
KERNEL(cudnnBatchNormalizationBackwardEx)
EXPORT int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(
    Handle*, int, int, void*, void*, void*, void*, void*, size_t* size) {
  return *size = bytes("STAND_IN_CUDNN_WORKSPACE"), 0;
}
EXPORT int cudnnGetBatchNormalizationBackwardExWorkspaceSize(
    Handle*, int, int, void*, void*, void*, void*, void*, void*, void*, size_t* size) {
  return *size = bytes("STAND_IN_CUDNN_WORKSPACE"), 0;
}
EXPORT int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(Handle*, int, int, void*, void*, size_t* size) {
  return *size = bytes("STAND_IN_CUDNN_RESERVE"), 0;
}

// Recurrent layers: what PyTorch asks of them is where their weights lie in the one block that holds them. All matrices
// of a layer and direction come first, gate by gate, then its biases, then the projection. A training forward keeps what
// cuDNN 9.24 says that it does (reserve_of_cudnn.py).

struct Rnn { int mode, gates, input, hidden, out, layers, directions; bool projected; size_t itemsize; };
struct Place { int rows, columns; size_t offset; };

static Place weight_of(const Rnn& rnn, int pseudo_layer, int id, bool bias) {
  size_t begin = 0;
  for (int at = 0;; ++at) {
    const int inputs = at < rnn.directions ? rnn.input : rnn.out * rnn.directions, gate = rnn.hidden;
    const size_t matrices = size_t(rnn.gates) * gate * (inputs + rnn.out), biases = size_t(2) * rnn.gates * gate;
    const size_t all = matrices + biases + (rnn.projected ? size_t(rnn.out) * gate : 0);
    if (at < pseudo_layer) {
      begin += all;
      continue;
    }
    if (at == rnn.layers * rnn.directions) return {0, 0, begin};
    if (id == 2 * rnn.gates) return {rnn.out, gate, begin + matrices + biases};
    if (bias) return {gate, 1, begin + matrices + size_t(id) * gate};
    const int state = id - rnn.gates;
    if (state < 0) return {gate, inputs, begin + size_t(id) * gate * inputs};
    return {gate, rnn.out, begin + size_t(rnn.gates) * gate * inputs + size_t(state) * gate * rnn.out};
  }
}

CREATES(cudnnCreateRNNDescriptor)
CREATES(cudnnCreateRNNDataDescriptor)
EXPORT int cudnnDestroyRNNDescriptor(void* made) { return free(made), 0; }
EXPORT int cudnnDestroyRNNDataDescriptor(void* made) { return free(made), 0; }
EXPORT int cudnnSetRNNDescriptor_v8(
    Rnn* rnn, int, int mode, int, int bidirectional, int, int dtype, int, int, int input, int hidden, int out,
    int layers, void*, unsigned) {
  const int gates = mode == 2 ? 4 : mode == 3 ? 3 : 1;
  *rnn = {mode, gates, input, hidden, out, layers, bidirectional + 1, out != hidden, size_t(dtype ? 2 : 4)};
  return 0;
}
EXPORT int cudnnSetRNNDataDescriptor(size_t* rows, int, int, int steps, int batch, int, const int*, void*) {
  return *rows = size_t(steps) * batch, 0;
}
QUIET(cudnnSetDropoutDescriptor)
QUIET(cudnnRestoreDropoutDescriptor)
EXPORT int cudnnDropoutGetStatesSize(Handle*, size_t* size) { return *size = 2 << 20, 0; }
EXPORT int cudnnGetRNNWeightSpaceSize(Handle*, Rnn* rnn, size_t* size) {
  return *size = rnn->itemsize * weight_of(*rnn, rnn->layers * rnn->directions, 0, false).offset, 0;
}
EXPORT int cudnnGetRNNWeightParams(
    Handle*, Rnn* rnn, int layer, size_t, char* weights, int id, Place* matrix, void** at_matrix, Place* bias,
    void** at_bias) {
  const Place found = weight_of(*rnn, layer, id, !matrix);
  *(matrix ? matrix : bias) = found;
  *(matrix ? at_matrix : at_bias) = weights + found.offset * rnn->itemsize;
  return 0;
}
EXPORT int cudnnGetTensorNdDescriptor(Place* place, int, int* dtype, int* count, int* sizes, int* strides) {
  *dtype = 0, *count = 3;
  sizes[0] = 1, sizes[1] = place->rows, sizes[2] = place->columns;
  strides[0] = place->rows * place->columns, strides[1] = place->columns, strides[2] = 1;
  return 0;
}
EXPORT int cudnnGetRNNTempSpaceSizes(Handle*, Rnn* rnn, int, size_t* rows, size_t* workspace, size_t* reserve) {
  const size_t units = *rows * rnn->directions * rnn->hidden, all = rnn->layers * units;
  std::vector<size_t> parts = {rnn->mode == 2 ? 4 * all : rnn->mode == 3 ? 6 * all : all, all - units};
  if (rnn->mode == 2) parts.push_back(all);
  if (rnn->projected) parts.push_back(all), parts.push_back(rnn->layers * *rows * rnn->directions * rnn->out);
  size_t kept = 256;
  for (size_t part : parts) kept += (part * rnn->itemsize + 31) / 32 * 32;
  *workspace = bytes("STAND_IN_CUDNN_WORKSPACE");
  if (reserve) *reserve = kept;
  return 0;
}
KERNEL(cudnnRNNForward)
KERNEL(cudnnRNNBackwardData_v8)
KERNEL(cudnnRNNBackwardWeights_v8)

// ---------------------------------------------------------------------------------------------- the driver's modules

// Kernels that are compiled while a program runs are no part of this: CUDA_ERROR_NOT_SUPPORTED.
#define UNSUPPORTED(name) \
  EXPORT int name(...) { return 801; }
UNSUPPORTED(cuFuncGetAttribute)
UNSUPPORTED(cuFuncSetAttribute)
UNSUPPORTED(cuFuncSetCacheConfig)
UNSUPPORTED(cuLaunchCooperativeKernel)
UNSUPPORTED(cuLaunchKernel)
UNSUPPORTED(cuLinkAddData_v2)
UNSUPPORTED(cuLinkComplete)
UNSUPPORTED(cuLinkCreate_v2)
UNSUPPORTED(cuModuleGetFunction)
UNSUPPORTED(cuModuleLoad)
UNSUPPORTED(cuModuleLoadData)
UNSUPPORTED(cuModuleLoadDataEx)
UNSUPPORTED(cuModuleUnload)
UNSUPPORTED(cuOccupancyMaxActiveBlocksPerMultiprocessor)
UNSUPPORTED(cuTensorMapEncodeTiled)
