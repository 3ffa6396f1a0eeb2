// PyTorch's own CUDA caching allocator (libc10_cuda.so, as installed) on a machine without a GPU.
//
// The CUDA runtime's functions that the allocator calls are defined here and shadow those of libcudart: one device of a
// given size, whose cudaMalloc gives ascending addresses until the size is used up. Reads lines "a BYTES" (allocate;
// allocations are numbered from 0) and "f NUMBER" (free), and prints after each: requested, allocated and reserved
// bytes, and the number of retries; "oom" ends it.
#include <c10/cuda/CUDACachingAllocator.h>
#include <cuda_runtime_api.h>

#include <iostream>
#include <map>
#include <string>
#include <vector>

static size_t next_address = 0x7f0000000000ull, limit = ~0ull, used = 0;
static std::map<void*, size_t> given;

extern "C" {
cudaError_t cudaMalloc(void** pointer, size_t size) {
  *pointer = nullptr;
  if (size > limit - used) return cudaErrorMemoryAllocation;
  *pointer = reinterpret_cast<void*>(next_address);
  next_address += size, used += size, given[*pointer] = size;
  return cudaSuccess;
}
cudaError_t cudaFree(void* pointer) {
  if (pointer) used -= given[pointer], given.erase(pointer);
  return cudaSuccess;
}
cudaError_t cudaMemGetInfo(size_t* free, size_t* total) { return *free = limit - used, *total = limit, cudaSuccess; }
cudaError_t cudaGetDeviceCount(int* count) { return *count = 1, cudaSuccess; }
cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = cudaDeviceProp{};
  properties->totalGlobalMem = limit;
  return cudaSuccess;
}
cudaError_t cudaSetDevice(int) { return cudaSuccess; }
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaDeviceSynchronize() { return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int* version) { return *version = 13000, cudaSuccess; }
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return *least = 0, *greatest = -1, cudaSuccess;
}
cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode*) { return cudaSuccess; }
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
cudaError_t cudaStreamGetCaptureInfo(
    cudaStream_t, cudaStreamCaptureStatus* status, unsigned long long*, cudaGraph_t*, const cudaGraphNode_t**,
#if CUDART_VERSION >= 13000
    const cudaGraphEdgeData**,
#endif
    size_t*) {
  return *status = cudaStreamCaptureStatusNone, cudaSuccess;
}
}

int main(int count, char** arguments) {
  namespace allocator = c10::cuda::CUDACachingAllocator;
  if (count > 1) limit = std::stoull(arguments[1]);
  allocator::init(1);
  std::vector<void*> held;
  char what;
  size_t value;
  while (std::cin >> what >> value) {
    if (what == 'a') {
      try {
        held.push_back(value ? allocator::raw_alloc_with_stream(value, nullptr) : nullptr);
      } catch (const c10::OutOfMemoryError&) {
        std::cout << "oom\n";
        return 0;
      }
    } else if (held[value]) {
      allocator::raw_delete(held[value]);
    }
    auto sums = allocator::getDeviceStats(0);
    std::cout << sums.requested_bytes[0].current << ' ' << sums.allocated_bytes[0].current << ' '
              << sums.reserved_bytes[0].current << ' ' << sums.num_alloc_retries << '\n';
  }
}
