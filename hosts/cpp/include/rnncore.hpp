// rnncore for C++17: runs the files that rnncore exports, whole or as streams, over onnxruntime's C interface.
//
//   rnncore::Runtime runtime("libonnxruntime.so");
//   rnncore::Model model = runtime.load("tagger.onnx");
//   auto answers = model.run({{"ids", rnncore::Array::of<std::int64_t>({1, 3}, {5, 9, 2})}});
//
// One header, nothing to link but dlopen's library where that is a library of its own.  What a file holds, says docs/format.md;
// sections below follow it: onnxruntime, bytes (JSON, base64, zlib, SHA-256), arrays, metadata, signature, model, stream, verify,
// random numbers, generators and translators.  Errors are those of rnncore.runtime.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#ifdef _WIN32
#define NOMINMAX
#include <windows.h>
#define RNNCORE_CALL __stdcall
#else
#include <dlfcn.h>
#define RNNCORE_CALL
#endif

namespace rnncore {

// ------------------------------------------------------------------------------------------------------------- errors

/// Every error that this header raises on purpose.
struct RnncoreError : std::runtime_error { using std::runtime_error::runtime_error; };
/// A value handed in is wrong: rank, width, dtype, lengths, range.
struct InputError : RnncoreError { using RnncoreError::RnncoreError; };
/// A character that the model does not know.
struct UnknownTokenError : InputError { using InputError::InputError; };
/// The file cannot be used.
struct ModelFileError : RnncoreError { using RnncoreError::RnncoreError; };
/// No ONNX model, or a truncated one.
struct NotOnnxError : ModelFileError { using ModelFileError::ModelFileError; };
/// An ONNX model that rnncore did not write.
struct ForeignModelError : ModelFileError { using ModelFileError::ModelFileError; };
/// Written by a newer rnncore.
struct FormatVersionError : ModelFileError { using ModelFileError::ModelFileError; };
/// Changed after export.
struct TamperedModelError : ModelFileError { using ModelFileError::ModelFileError; };
/// A stream was asked of a model that does not stream.
struct NotStreamableError : RnncoreError { using RnncoreError::RnncoreError; };
/// Bytes that are no saved state of this model.
struct SnapshotError : RnncoreError { using RnncoreError::RnncoreError; };

namespace detail {

/// One error that lists every problem, or nothing if there is none.
template <class Error>
void raise_all(const std::vector<std::string>& problems, const std::string& title = "") {
  if (problems.empty()) return;
  const std::string head = title.empty() ? "" : title + ": ";
  if (problems.size() == 1) throw Error(head + problems.front());
  std::string text = head + std::to_string(problems.size()) + " problems:";
  for (std::size_t i = 0; i < problems.size() && i < 10; ++i) text += "\n  - " + problems[i];
  if (problems.size() > 10) text += "\n  - and " + std::to_string(problems.size() - 10) + " more";
  throw Error(text);
}

// -------------------------------------------------------------------------------------------------------- onnxruntime

/// onnxruntime's interface is a table of functions to which new ones are only ever appended, so that a place in it means the
/// same in every version.  These are the places of the functions that are called here; Api::check tries them.
enum class Slot : std::size_t {
  GetErrorMessage = 2,
  CreateEnv = 3,
  CreateSession = 7,
  CreateSessionFromArray = 8,
  Run = 9,
  CreateSessionOptions = 10,
  SetSessionLogSeverityLevel = 22,
  SetIntraOpNumThreads = 24,
  SessionGetInputCount = 30,
  SessionGetOutputCount = 31,
  SessionGetInputName = 36,
  SessionGetOutputName = 37,
  CreateTensorWithDataAsOrtValue = 49,
  GetTensorMutableData = 51,
  GetTensorElementType = 60,
  GetDimensionsCount = 61,
  GetDimensions = 62,
  GetTensorTypeAndShape = 65,
  CreateCpuMemoryInfo = 69,
  AllocatorFree = 76,
  GetAllocatorWithDefaultOptions = 78,
  ReleaseEnv = 92,
  ReleaseStatus = 93,
  ReleaseMemoryInfo = 94,
  ReleaseSession = 95,
  ReleaseValue = 96,
  ReleaseTensorTypeAndShapeInfo = 99,
  ReleaseSessionOptions = 100,
};

using Handle = std::shared_ptr<void>;

/// The table, and the two objects that every session needs.
class Api {
 public:
  /// From what OrtGetApiBase() returns.
  explicit Api(const void* base) {
    struct Base {
      const void*(RNNCORE_CALL* get_api)(std::uint32_t);
      const char*(RNNCORE_CALL* version)();
    };
    if (base == nullptr) throw InputError("there is no onnxruntime: hand in OrtGetApiBase()");
    const auto* table = static_cast<const Base*>(base);
    version_ = table->version();
    int major = 0, minor = 0;
    if (std::sscanf(version_.c_str(), "%d.%d", &major, &minor) != 2 || major != 1 || minor < 20) {
      throw InputError("onnxruntime has version " + version_ + ", expected 1.20 or later of 1");
    }
    slots_ = static_cast<void* const*>(table->get_api(20));
    if (slots_ == nullptr) throw InputError("onnxruntime " + version_ + " has no interface of version 20");
    void* made = nullptr;
    call(Slot::CreateEnv, int{4}, "rnncore", &made);
    env_ = held(made, Slot::ReleaseEnv);
    call(Slot::CreateCpuMemoryInfo, int{1}, int{0}, &made);
    memory_ = held(made, Slot::ReleaseMemoryInfo);
    check();
  }

  template <class Result, class... Args>
  using Function = Result(RNNCORE_CALL*)(Args...);

  template <class Result, class... Args>
  Function<Result, Args...> function(Slot slot) const {
    return reinterpret_cast<Function<Result, Args...>>(slots_[static_cast<std::size_t>(slot)]);
  }

  const std::string& version() const { return version_; }
  void* env() const { return env_.get(); }

  /// Calls a function that answers with a status, and turns a bad one into InputError.
  template <class... Args>
  void call(Slot slot, Args... args) const {
    void* status = function<void*, Args...>(slot)(args...);
    if (status == nullptr) return;
    const std::string message = function<const char*, void*>(Slot::GetErrorMessage)(status);
    function<void, void*>(Slot::ReleaseStatus)(status);
    throw InputError(message.substr(0, message.find('\n')));
  }

  Handle held(void* object, Slot release) const {
    return Handle(object, function<void, void*>(release));
  }

  /// A tensor over memory of the caller.
  Handle tensor(void* data, std::size_t bytes, const std::vector<std::int64_t>& dims, int type) const {
    static char nothing = 0;
    void* made = nullptr;
    call(Slot::CreateTensorWithDataAsOrtValue, memory_.get(), data != nullptr ? data : static_cast<void*>(&nothing), bytes,
         dims.data(), dims.size(), type, &made);
    return held(made, Slot::ReleaseValue);
  }

  /// ONNX's number of the dtype, sizes, and the memory of a tensor.
  std::pair<int, std::vector<std::int64_t>> described(void* value) const {
    void* made = nullptr;
    call(Slot::GetTensorTypeAndShape, value, &made);
    const Handle info = held(made, Slot::ReleaseTensorTypeAndShapeInfo);
    int type = 0;
    std::size_t rank = 0;
    call(Slot::GetTensorElementType, info.get(), &type);
    call(Slot::GetDimensionsCount, info.get(), &rank);
    std::vector<std::int64_t> dims(rank);
    if (rank != 0) call(Slot::GetDimensions, info.get(), dims.data(), rank);
    return {type, dims};
  }

  void* memory_of(void* value) const {
    void* data = nullptr;
    call(Slot::GetTensorMutableData, value, &data);
    return data;
  }

  std::vector<std::string> names(void* session, Slot count, Slot name) const {
    std::size_t number = 0;
    void* allocator = nullptr;
    call(count, session, &number);
    call(Slot::GetAllocatorWithDefaultOptions, &allocator);
    std::vector<std::string> found;
    for (std::size_t i = 0; i < number; ++i) {
      char* text = nullptr;
      call(name, session, i, allocator, &text);
      found.emplace_back(text);
      call(Slot::AllocatorFree, allocator, static_cast<void*>(text));
    }
    return found;
  }

 private:
  /// A tensor must come back as it was made, or the table is another one than this header was written for.
  void check() const {
    std::array<float, 6> numbers{1, 2, 3, 4, 5, 6};
    const std::vector<std::int64_t> dims{2, 3};
    const Handle value = tensor(numbers.data(), sizeof(numbers), dims, 1);
    if (described(value.get()) != std::make_pair(1, dims) || memory_of(value.get()) != numbers.data()) {
      throw InputError("onnxruntime " + version_ + " does not have the interface that it should");
    }
  }

  std::string version_;
  void* const* slots_ = nullptr;
  Handle env_, memory_;
};

inline const void* base_of(const std::string& library) {
  using Base = const void*(RNNCORE_CALL*)();
#ifdef _WIN32
  HMODULE handle = LoadLibraryA(library.c_str());
  auto base = handle ? reinterpret_cast<Base>(GetProcAddress(handle, "OrtGetApiBase")) : nullptr;
  const std::string why = "it cannot be loaded";
#else
  void* handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  auto base = handle ? reinterpret_cast<Base>(dlsym(handle, "OrtGetApiBase")) : nullptr;
  const char* said = base ? nullptr : dlerror();
  const std::string why = said ? said : "it has no OrtGetApiBase";
#endif
  if (base == nullptr) throw InputError(library + " is no onnxruntime: " + why);
  return base();  // the library stays loaded: sessions may outlive whoever asked for it
}

// -------------------------------------------------------------------------------------------------------------- bytes

using Bytes = std::vector<unsigned char>;

/// JSON, read only.  Numbers keep their text, so that integers of any size lose nothing.
struct Json {
  enum class Kind { null, boolean, number, text, list, object };
  Kind kind = Kind::null;
  std::string text;  // of numbers as well
  std::vector<Json> items;
  std::vector<std::pair<std::string, Json>> members;

  static Json parse(const std::string& source) {
    std::size_t at = 0;
    Json value = read(source, at, 0);
    skip(source, at);
    if (at != source.size()) throw ModelFileError("JSON in the file goes on after its end");
    return value;
  }
  bool is_null() const { return kind == Kind::null; }
  bool truth() const { return kind == Kind::boolean && text == "true"; }
  double number() const { return converted<double>([](const std::string& digits) { return std::stod(digits); }); }
  std::int64_t integer() const { return converted<std::int64_t>([](const std::string& digits) { return std::stoll(digits); }); }
  const std::string& string() const { return expect(Kind::text).text; }
  const std::vector<Json>& list() const { return expect(Kind::list).items; }
  bool has(const std::string& name) const { return !(*this)[name].is_null(); }
  const Json& operator[](const std::string& name) const {
    static const Json none;
    for (const auto& [key, value] : members) {
      if (key == name) return value;
    }
    return none;
  }
  const Json& expect(Kind wanted) const {
    if (kind != wanted) throw ModelFileError("JSON in the file is not what docs/format.md says: export the model again");
    return *this;
  }

 private:
  template <class Number, class Read>
  Number converted(const Read& read) const {
    try {
      return read(expect(Kind::number).text);
    } catch (const std::logic_error&) {  // no digits, or too many
      throw ModelFileError("JSON in the file holds " + text + ", which is no number that can be used");
    }
  }
  static void skip(const std::string& s, std::size_t& at) {
    while (at < s.size() && (s[at] == ' ' || s[at] == '\n' || s[at] == '\t' || s[at] == '\r')) ++at;
  }
  static void take(const std::string& s, std::size_t& at, const std::string& word) {
    if (s.compare(at, word.size(), word) != 0) throw ModelFileError("JSON in the file cannot be read");
    at += word.size();
  }
  static Json read(const std::string& s, std::size_t& at, int depth) {
    skip(s, at);
    if (at >= s.size() || depth > 100) throw ModelFileError("JSON in the file cannot be read");
    Json value;
    const char first = s[at];
    if (first == '{' || first == '[') {
      value.kind = first == '{' ? Kind::object : Kind::list;
      const char last = first == '{' ? '}' : ']';
      ++at;
      skip(s, at);
      if (at < s.size() && s[at] == last) return ++at, value;
      for (;;) {
        if (first == '{') {
          skip(s, at);
          std::string key = read_text(s, at);
          skip(s, at);
          take(s, at, ":");
          value.members.emplace_back(std::move(key), read(s, at, depth + 1));
        } else {
          value.items.push_back(read(s, at, depth + 1));
        }
        skip(s, at);
        if (at < s.size() && s[at] == last) return ++at, value;
        take(s, at, ",");
      }
    }
    if (first == '"') {
      value.kind = Kind::text;
      value.text = read_text(s, at);
    } else if (first == 't' || first == 'f') {
      value.kind = Kind::boolean;
      value.text = first == 't' ? "true" : "false";
      take(s, at, value.text);
    } else if (first == 'n') {
      take(s, at, "null");
    } else {
      const std::size_t end = std::min(s.find_first_not_of("+-.0123456789eE", at), s.size());
      if (end == at) throw ModelFileError("JSON in the file cannot be read");
      value.kind = Kind::number;
      value.text = s.substr(at, end - at);
      at = end;
    }
    return value;
  }
  static std::uint32_t hex(const std::string& s, std::size_t& at) {
    if (at + 4 > s.size()) throw ModelFileError("JSON in the file cannot be read");
    if (s.find_first_not_of("0123456789abcdefABCDEF", at) < at + 4) throw ModelFileError("JSON in the file cannot be read");
    const auto code = static_cast<std::uint32_t>(std::stoul(s.substr(at, 4), nullptr, 16));
    at += 4;
    return code;
  }
  static std::string read_text(const std::string& s, std::size_t& at) {
    take(s, at, "\"");
    std::string text;
    while (at < s.size() && s[at] != '"') {
      if (s[at] != '\\') {
        text += s[at++];
        continue;
      }
      if (++at >= s.size()) break;
      const char escaped = s[at++];
      static const std::string from = "\"\\/bfnrt", to = "\"\\/\b\f\n\r\t";
      if (escaped != 'u') {
        const std::size_t found = from.find(escaped);
        if (found == std::string::npos) throw ModelFileError("JSON in the file cannot be read");
        text += to[found];
        continue;
      }
      std::uint32_t code = hex(s, at);
      if (code >= 0xD800 && code < 0xDC00 && s.compare(at, 2, "\\u") == 0) {
        at += 2;
        code = 0x10000 + ((code - 0xD800) << 10) + (hex(s, at) - 0xDC00);
      }
      if (code < 0x80) {
        text += static_cast<char>(code);
      } else {
        const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
        text += static_cast<char>((0xF0 << (3 - more) & 0xFF) | (code >> (6 * more)));
        for (int i = more - 1; i >= 0; --i) text += static_cast<char>(0x80 | ((code >> (6 * i)) & 0x3F));
      }
    }
    take(s, at, "\"");
    return text;
  }
};

inline Bytes from_base64(const std::string& text) {
  static const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  Bytes bytes;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char letter : text) {
    if (letter == '=') break;
    const std::size_t value = letters.find(letter);
    if (value == std::string::npos) throw ModelFileError("base64 in the file cannot be read");
    bits = (bits << 6) | static_cast<std::uint32_t>(value);
    if ((count += 6) < 8) continue;
    count -= 8;
    bytes.push_back(static_cast<unsigned char>(bits >> count));
  }
  return bytes;
}

inline std::string to_base64(const Bytes& bytes) {
  static const char* letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string text;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    std::uint32_t bits = 0;
    for (std::size_t k = 0; k < 3; ++k) bits = bits << 8 | (i + k < bytes.size() ? bytes[i + k] : 0u);
    for (std::size_t k = 0; k < 4; ++k) text += i + k <= bytes.size() ? letters[(bits >> (18 - 6 * k)) & 63] : '=';
  }
  return text;
}

/// zlib's format (RFC 1950, 1951).
class Inflate {
 public:
  static Bytes of(const Bytes& packed, std::size_t limit) {
    Inflate reader(packed, limit);
    return reader.run();
  }

 private:
  Inflate(const Bytes& packed, std::size_t limit) : in_(packed), limit_(limit) {}

  /// Codes of a prefix code in canonical order: how many of each length, and their symbols.
  struct Codes {
    std::array<int, 16> count{};
    std::vector<int> symbols;
    explicit Codes(const std::vector<int>& lengths) : symbols(lengths.size()) {
      for (const int length : lengths) ++count[static_cast<std::size_t>(length)];
      count[0] = 0;
      std::array<int, 16> next{};
      for (std::size_t i = 1; i < 15; ++i) next[i + 1] = next[i] + count[i];
      for (std::size_t i = 0; i < lengths.size(); ++i) {
        if (lengths[i] != 0) symbols[static_cast<std::size_t>(next[static_cast<std::size_t>(lengths[i])]++)] = static_cast<int>(i);
      }
    }
  };

  [[noreturn]] static void bad() { throw ModelFileError("packed numbers in the file are damaged"); }

  int bits(int count) {
    while (held_ < count) {
      if (at_ >= in_.size()) bad();
      buffer_ |= static_cast<std::uint32_t>(in_[at_++]) << held_;
      held_ += 8;
    }
    const int value = static_cast<int>(buffer_ & ((1u << count) - 1));
    buffer_ >>= count;
    held_ -= count;
    return value;
  }

  int symbol(const Codes& codes) {
    int code = 0, first = 0, index = 0;
    for (std::size_t length = 1; length < 16; ++length) {
      code |= bits(1);
      if (code - first < codes.count[length]) return codes.symbols[static_cast<std::size_t>(index + code - first)];
      index += codes.count[length];
      first = (first + codes.count[length]) << 1;
      code <<= 1;
    }
    bad();
  }

  Bytes run() {
    if (in_.size() < 6 || (in_[0] & 15) != 8 || (in_[0] * 256 + in_[1]) % 31 != 0 || (in_[1] & 32) != 0) bad();
    at_ = 2;
    bool last = false;
    while (!last) {
      last = bits(1) == 1;
      const int kind = bits(2);
      if (kind == 0) stored();
      else if (kind == 1) compressed(fixed_lengths(), Codes(std::vector<int>(30, 5)));
      else if (kind == 2) dynamic();
      else bad();
    }
    return out_;
  }

  void put(unsigned char byte) {
    if (out_.size() >= limit_) bad();
    out_.push_back(byte);
  }

  void stored() {
    buffer_ = 0;
    held_ = 0;
    const int size = bits(16);
    if ((bits(16) ^ 0xFFFF) != size) bad();
    for (int i = 0; i < size; ++i) put(static_cast<unsigned char>(bits(8)));
  }

  static Codes fixed_lengths() {
    std::vector<int> lengths(288, 8);
    std::fill(lengths.begin() + 144, lengths.begin() + 256, 9);
    std::fill(lengths.begin() + 256, lengths.begin() + 280, 7);
    return Codes(lengths);
  }

  void dynamic() {
    const int literals = bits(5) + 257, distances = bits(5) + 1, own = bits(4) + 4;
    static constexpr std::array<int, 19> order{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
    std::vector<int> lengths(19, 0);
    for (int i = 0; i < own; ++i) lengths[static_cast<std::size_t>(order[static_cast<std::size_t>(i)])] = bits(3);
    const Codes codes(lengths);
    std::vector<int> all;
    const auto total = static_cast<std::size_t>(literals + distances);
    while (all.size() < total) {
      const int found = symbol(codes);
      if (found < 16) all.push_back(found);
      else if (found == 16 && all.empty()) bad();
      else if (found == 16) all.insert(all.end(), static_cast<std::size_t>(3 + bits(2)), int{all.back()});
      else all.insert(all.end(), static_cast<std::size_t>(found == 17 ? 3 + bits(3) : 11 + bits(7)), 0);
    }
    if (all.size() != total) bad();
    compressed(Codes({all.begin(), all.begin() + literals}), Codes({all.begin() + literals, all.end()}));
  }

  void compressed(const Codes& literals, const Codes& distances) {
    static constexpr std::array<int, 29> size{3,  4,  5,  6,  7,  8,  9,  10, 11,  13,  15,  17,  19,  23, 27,
                                              31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
    static constexpr std::array<int, 30> back{1,   2,   3,   4,   5,   7,    9,    13,   17,   25,   33,   49,   65,    97,    129,
                                              193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577};
    for (;;) {
      const int found = symbol(literals);
      if (found == 256) return;
      if (found < 256) {
        put(static_cast<unsigned char>(found));
        continue;
      }
      const auto i = static_cast<std::size_t>(found - 257);
      if (i >= size.size()) bad();
      const int length = size[i] + bits(i < 8 || i == 28 ? 0 : static_cast<int>(i / 4) - 1);
      const auto k = static_cast<std::size_t>(symbol(distances));
      if (k >= back.size()) bad();
      const auto distance = static_cast<std::size_t>(back[k] + bits(k < 4 ? 0 : static_cast<int>(k / 2) - 1));
      if (distance > out_.size()) bad();
      for (int n = 0; n < length; ++n) put(out_[out_.size() - distance]);
    }
  }

  const Bytes& in_;
  std::size_t limit_, at_ = 0;
  std::uint32_t buffer_ = 0;
  int held_ = 0;
  Bytes out_;
};

/// SHA-256 (FIPS 180-4).
inline std::array<unsigned char, 32> sha256(const unsigned char* data, std::size_t size) {
  static const auto constants = [] {
    std::array<std::uint32_t, 72> made{};  // fractional parts of cube roots of 64 primes, then of square roots of 8
    std::size_t found = 0;
    for (int n = 2; found < 64; ++n) {
      bool prime = true;
      for (int d = 2; d * d <= n; ++d) prime = prime && n % d != 0;
      if (!prime) continue;
      const auto fraction = [n](int power) {  // bit by bit: floating point has too few digits
        std::uint64_t root = 0;
        for (int bit = 36; bit >= 0; --bit) {
          const std::uint64_t next = root | (std::uint64_t{1} << bit);
          // next^power <= n * 2^(32 * power), in limbs of 32 bits
          std::vector<std::uint64_t> product{1};
          for (int i = 0; i < power; ++i) {
            std::vector<std::uint64_t> wider(product.size() + 2, 0);
            for (std::size_t j = 0; j < product.size(); ++j) {
              std::uint64_t carry = product[j] * (next & 0xFFFFFFFFu) + wider[j];
              wider[j] = carry & 0xFFFFFFFFu;
              carry = product[j] * (next >> 32) + wider[j + 1] + (carry >> 32);
              wider[j + 1] = carry & 0xFFFFFFFFu;
              wider[j + 2] += carry >> 32;
            }
            product = wider;
          }
          std::uint64_t whole = 0;  // the product over 2^(32 * power)
          for (std::size_t j = product.size(); j-- > static_cast<std::size_t>(power);) whole = (whole << 32) | product[j];
          if (whole < static_cast<std::uint64_t>(n)) root = next;
        }
        return static_cast<std::uint32_t>(root);
      };
      made[found] = fraction(3);
      if (found < 8) made[64 + found] = fraction(2);
      ++found;
    }
    return made;
  }();
  const auto turn = [](std::uint32_t x, int n) { return (x >> n) | (x << (32 - n)); };
  std::array<std::uint32_t, 8> hash{};
  std::copy(constants.begin() + 64, constants.end(), hash.begin());
  const std::size_t blocks = (size + 8) / 64 + 1;
  for (std::size_t block = 0; block < blocks; ++block) {
    std::array<unsigned char, 64> own{};
    const std::size_t start = block * 64;
    if (start < size) std::memcpy(own.data(), data + start, std::min<std::size_t>(64, size - start));
    if (start <= size && size < start + 64) own[size - start] = 0x80;
    if (block + 1 == blocks) {
      for (std::size_t i = 0; i < 8; ++i) own[63 - i] = static_cast<unsigned char>((std::uint64_t{size} * 8) >> (8 * i));
    }
    std::array<std::uint32_t, 64> w{};
    for (std::size_t t = 0; t < 16; ++t) {
      w[t] = std::uint32_t{own[4 * t]} << 24 | std::uint32_t{own[4 * t + 1]} << 16 | std::uint32_t{own[4 * t + 2]} << 8 | own[4 * t + 3];
    }
    for (std::size_t t = 16; t < 64; ++t) {
      const std::uint32_t a = w[t - 15], b = w[t - 2];
      w[t] = w[t - 16] + (turn(a, 7) ^ turn(a, 18) ^ (a >> 3)) + w[t - 7] + (turn(b, 17) ^ turn(b, 19) ^ (b >> 10));
    }
    auto [a, b, c, d, e, f, g, h] = hash;
    for (std::size_t t = 0; t < 64; ++t) {
      const std::uint32_t one = h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + ((e & f) ^ (~e & g)) + constants[t] + w[t];
      const std::uint32_t two = (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
      h = g, g = f, f = e, e = d + one, d = c, c = b, b = a, a = one + two;
    }
    const std::array<std::uint32_t, 8> more{a, b, c, d, e, f, g, h};
    for (std::size_t i = 0; i < 8; ++i) hash[i] += more[i];
  }
  std::array<unsigned char, 32> digest{};
  for (std::size_t i = 0; i < 32; ++i) digest[i] = static_cast<unsigned char>(hash[i / 4] >> (24 - 8 * (i % 4)));
  return digest;
}

inline std::string hex(const std::array<unsigned char, 32>& digest) {
  static const char* digits = "0123456789abcdef";
  std::string text;
  for (const unsigned char byte : digest) (text += digits[byte >> 4]) += digits[byte & 15];
  return text;
}

inline Bytes read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw NotOnnxError(path + ": the file cannot be opened");
  Bytes bytes{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
  if (file.bad()) throw NotOnnxError(path + ": the file cannot be read");
  return bytes;
}

}  // namespace detail

// ------------------------------------------------------------------------------------------------------------- arrays

namespace detail {

struct Dtype {
  const char* name;
  int onnx;
  std::size_t bytes;
};

inline const Dtype& dtype(const std::string& name) {
  static const std::array<Dtype, 12> known{{{"float32", 1, 4}, {"uint8", 2, 1}, {"int8", 3, 1}, {"uint16", 4, 2}, {"int16", 5, 2},
                                            {"int32", 6, 4}, {"int64", 7, 8}, {"bool", 9, 1}, {"float16", 10, 2}, {"float64", 11, 8},
                                            {"uint32", 12, 4}, {"uint64", 13, 8}}};
  for (const Dtype& one : known) {
    if (name == one.name) return one;
  }
  throw InputError("the model has numbers of type " + name + ", which this header cannot hold");
}

inline std::string dtype_name(int onnx) {
  for (const char* name : {"float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "bool", "float16", "float64", "uint32", "uint64"}) {
    if (dtype(name).onnx == onnx) return name;
  }
  throw InputError("onnxruntime answered with a type that this header cannot hold: number " + std::to_string(onnx));
}

template <class T>
std::string dtype_of() {
  if constexpr (std::is_same_v<T, bool>) return "bool";
  else if constexpr (std::is_floating_point_v<T>) return sizeof(T) == 4 ? "float32" : "float64";
  else return std::string(std::is_signed_v<T> ? "int" : "uint") + std::to_string(8 * sizeof(T));
}

inline double from_half(std::uint16_t half) {
  const int exponent = (half >> 10) & 31, fraction = half & 1023;
  const double sign = (half & 0x8000) != 0 ? -1.0 : 1.0;
  if (exponent == 31) return fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : sign * std::numeric_limits<double>::infinity();
  return sign * (exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25));
}

/// The nearest 16-bit float, the even one of two.
inline std::uint16_t to_half(double number) {
  if (std::isnan(number)) return 0x7e00;
  const int sign = std::signbit(number) ? 0x8000 : 0;
  const double size = std::abs(number);
  if (size >= 65520) return static_cast<std::uint16_t>(sign | 0x7c00);
  const int power = size < std::ldexp(1.0, -14) ? -14 : std::ilogb(size);
  const int rounded = static_cast<int>(std::nearbyint(std::ldexp(size, 10 - power)));  // ties to even, unless somebody changed that
  return static_cast<std::uint16_t>(sign | (rounded + (power + 14) * 1024));
}

inline std::int64_t product(const std::vector<std::int64_t>& sizes, std::size_t from = 0, std::size_t to = SIZE_MAX) {
  std::int64_t total = 1;
  for (std::size_t i = from; i < std::min(to, sizes.size()); ++i) total *= sizes[i];
  return total;
}

inline std::string text(const std::vector<std::int64_t>& sizes) {
  std::string joined;
  for (const std::int64_t size : sizes) joined += (joined.empty() ? "" : ", ") + std::to_string(size);
  return "[" + joined + "]";
}

}  // namespace detail

/// Numbers of one dtype (NumPy's name) in C order.
class Array {
 public:
  Array() = default;

  /// Zeros.
  Array(std::string type, std::vector<std::int64_t> sizes) : dtype_(std::move(type)), dims_(std::move(sizes)) {
    std::int64_t total = static_cast<std::int64_t>(detail::dtype(dtype_).bytes);
    for (const std::int64_t size : dims_) {
      if (size < 0) throw InputError("an array has sizes " + detail::text(dims_) + ", expected at least 0");
      if (size != 0 && total > (std::int64_t{1} << 46) / size) throw InputError("an array of sizes " + detail::text(dims_) + " is larger than memory");
      total *= size;
    }
    try {
      bytes_.resize(static_cast<std::size_t>(total));
    } catch (const std::bad_alloc&) {
      throw InputError("an array of sizes " + detail::text(dims_) + " is larger than memory");
    }
  }

  /// `numbers` with these sizes.  Raises InputError if they are not as many.
  template <class T>
  static Array of(std::vector<std::int64_t> sizes, const std::vector<T>& numbers) {
    Array made(detail::dtype_of<T>(), std::move(sizes));
    if (made.size() != numbers.size()) {
      throw InputError(std::to_string(numbers.size()) + " numbers for an array of sizes " + detail::text(made.dims_));
    }
    std::copy(numbers.begin(), numbers.end(), made.template data<T>());
    return made;
  }

  const std::string& dtype() const { return dtype_; }
  const std::vector<std::int64_t>& dims() const { return dims_; }
  std::size_t size() const { return bytes_.size() / detail::dtype(dtype_).bytes; }
  std::vector<unsigned char>& bytes() { return bytes_; }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

  /// The numbers.  Raises InputError if T is not what the array holds.
  template <class T>
  T* data() {
    if (detail::dtype_of<T>() != dtype_) throw InputError("the array holds " + dtype_ + ", not " + detail::dtype_of<T>());
    return reinterpret_cast<T*>(bytes_.data());
  }
  template <class T>
  const T* data() const { return const_cast<Array*>(this)->data<T>(); }

  /// One number, whatever the dtype; exact but for integers above 2^53.
  double number(std::size_t i) const {
    if (dtype_ == "float32") return data<float>()[i];
    if (dtype_ == "float64") return data<double>()[i];
    if (dtype_ == "float16") return detail::from_half(reinterpret_cast<const std::uint16_t*>(bytes_.data())[i]);
    if (dtype_ == "int64") return static_cast<double>(data<std::int64_t>()[i]);
    if (dtype_ == "int32") return data<std::int32_t>()[i];
    if (dtype_ == "int16") return data<std::int16_t>()[i];
    if (dtype_ == "int8") return data<std::int8_t>()[i];
    if (dtype_ == "uint64") return static_cast<double>(data<std::uint64_t>()[i]);
    if (dtype_ == "uint32") return data<std::uint32_t>()[i];
    if (dtype_ == "uint16") return data<std::uint16_t>()[i];
    return bytes_[i];
  }

  /// Give it other sizes with as many numbers.
  Array reshaped(std::vector<std::int64_t> sizes) const {
    Array other = *this;
    if (detail::product(sizes) != detail::product(dims_)) {
      throw InputError("an array of sizes " + detail::text(dims_) + " cannot have sizes " + detail::text(sizes));
    }
    other.dims_ = std::move(sizes);
    return other;
  }

  bool is_float() const { return dtype_.compare(0, 5, "float") == 0; }

 private:
  std::string dtype_ = "float32";
  std::vector<std::int64_t> dims_{0};
  std::vector<unsigned char> bytes_;
};

/// Inputs and outputs by name.
using Arrays = std::map<std::string, Array>;

namespace detail {

/// An array as (outer, along, inner) around one axis, inner in bytes.
struct Around {
  std::size_t outer, along, inner;
  Around(const Array& array, std::size_t axis)
      : outer(static_cast<std::size_t>(product(array.dims(), 0, axis))),
        along(static_cast<std::size_t>(array.dims()[axis])),
        inner(static_cast<std::size_t>(product(array.dims(), axis + 1)) * dtype(array.dtype()).bytes) {}
};

/// Entries begin..end along an axis.
inline Array slice(const Array& array, std::size_t axis, std::int64_t begin, std::int64_t end) {
  std::vector<std::int64_t> dims = array.dims();
  dims[axis] = std::max<std::int64_t>(0, end - begin);
  Array part(array.dtype(), dims);
  const Around from(array, axis), to(part, axis);
  const std::size_t count = to.along * to.inner;
  for (std::size_t o = 0; o < from.outer && count != 0; ++o) {
    std::memcpy(part.bytes().data() + o * count,
                array.bytes().data() + (o * from.along + static_cast<std::size_t>(begin)) * from.inner, count);
  }
  return part;
}

/// Several arrays one after the other along an axis.
inline Array concat(const std::vector<Array>& arrays, std::size_t axis) {
  std::vector<std::int64_t> dims = arrays.front().dims();
  dims[axis] = 0;
  for (const Array& array : arrays) dims[axis] += array.dims()[axis];
  Array whole(arrays.front().dtype(), dims);
  const Around to(whole, axis);
  std::size_t at = 0;
  for (const Array& array : arrays) {
    const Around from(array, axis);
    const std::size_t count = from.along * from.inner;
    for (std::size_t o = 0; o < to.outer && count != 0; ++o) {
      std::memcpy(whole.bytes().data() + o * to.along * to.inner + at, array.bytes().data() + o * count, count);
    }
    at += count;
  }
  return whole;
}

inline Array with_axis(const Array& array, std::size_t axis) {
  std::vector<std::int64_t> dims = array.dims();
  dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis), 1);
  return array.reshaped(dims);
}

inline Array without_axis(const Array& array, std::size_t axis) {
  std::vector<std::int64_t> dims = array.dims();
  dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(axis));
  return array.reshaped(dims);
}

/// Make entries of each row zero from its length on.
inline void zero_beyond(Array& array, std::size_t batch, std::size_t time, const std::vector<std::int64_t>& lengths) {
  const std::size_t bytes = dtype(array.dtype()).bytes;
  const auto at = [&array](std::size_t i, std::size_t axis) {
    return static_cast<std::int64_t>(i) / product(array.dims(), axis + 1) % array.dims()[axis];
  };
  for (std::size_t i = 0; i < array.size(); ++i) {
    if (at(i, time) >= lengths[static_cast<std::size_t>(at(i, batch))]) std::memset(array.bytes().data() + i * bytes, 0, bytes);
  }
}

inline Array filled(const std::string& type, const std::vector<std::int64_t>& dims, double value) {
  Array array(type, dims);
  for (std::size_t i = 0; i < array.size(); ++i) {
    if (type == "float32") array.data<float>()[i] = static_cast<float>(value);
    else if (type == "float64") array.data<double>()[i] = value;
    else if (type == "int64") array.data<std::int64_t>()[i] = static_cast<std::int64_t>(value);
    else if (type == "int32") array.data<std::int32_t>()[i] = static_cast<std::int32_t>(value);
    else if (value != 0) throw ModelFileError("an option of type " + type + " has the default " + std::to_string(value));
  }
  return array;
}

inline Array from_bytes(const Bytes& bytes, const std::string& type, const std::vector<std::int64_t>& dims) {
  Array array(type, dims);
  if (bytes.size() != array.bytes().size()) throw ModelFileError("numbers in the file have another size than they should");
  array.bytes() = bytes;  // little-endian, as every machine that onnxruntime runs on
  return array;
}

// ----------------------------------------------------------------------------------------------------------- metadata

constexpr int format_version = 3;

/// The fields of one protobuf message: number, begin and end of the content.
class Fields {
 public:
  Fields(const Bytes& bytes, std::size_t begin, std::size_t end) : bytes_(bytes), at_(begin), end_(end) {}

  struct Malformed {};
  std::uint64_t number = 0;
  std::size_t begin = 0, end = 0;

  bool next() {
    if (at_ >= end_) return false;
    const std::uint64_t tag = varint();
    number = tag >> 3;
    std::uint64_t size = 0;
    begin = at_;
    switch (tag & 7) {
      case 0: varint(); size = at_ - begin; break;
      case 1: size = 8; break;
      case 2: size = varint(); begin = at_; break;
      case 5: size = 4; break;
      default: throw Malformed();
    }
    if (number == 0 || size > end_ - begin) throw Malformed();
    end = at_ = begin + static_cast<std::size_t>(size);
    return true;
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (int shift = 0; shift < 70; shift += 7) {
      if (at_ >= end_) throw Malformed();
      const unsigned char byte = bytes_[at_++];
      if (shift < 64) value |= static_cast<std::uint64_t>(byte & 127) << shift;
      if (byte < 128) return value;
    }
    throw Malformed();
  }

  const Bytes& bytes_;
  std::size_t at_, end_;
};

/// The texts of a file by name without "rnncore.", and where its fingerprint is.
struct Metadata {
  std::map<std::string, std::string> found;
  std::size_t mark = 0, marks = 0;
};

/// Empty for a file of others.  Raises NotOnnxError for bytes that are no model.
inline Metadata find_metadata(const Bytes& bytes) {
  Metadata metadata;
  auto& [found, mark, marks] = metadata;
  bool has_graph = false;
  try {
    for (Fields model(bytes, 0, bytes.size()); model.next();) {
      has_graph = has_graph || model.number == 7;
      if (model.number != 14) continue;
      std::string key, value;
      std::size_t begin = 0;
      for (Fields entry(bytes, model.begin, model.end); entry.next();) {
        std::string content(reinterpret_cast<const char*>(bytes.data()) + entry.begin, entry.end - entry.begin);
        if (entry.number == 1) key = std::move(content);
        else if (entry.number == 2) value = std::move(content), begin = entry.begin;
      }
      if (key.compare(0, 8, "rnncore.") != 0) continue;
      if (key == "rnncore.fingerprint") ++marks, mark = begin;
      found[key.substr(8)] = std::move(value);
    }
  } catch (const Fields::Malformed&) {
    if (bytes.size() > 8 && std::memcmp(bytes.data() + 4, "ORTM", 4) == 0) {
      throw NotOnnxError("the file has onnxruntime's own format (.ort): load the .onnx file that it was made from");
    }
    throw NotOnnxError("the file is no ONNX model, or is truncated or damaged: copy or export it again");
  }
  if (!has_graph) throw NotOnnxError("the file is no ONNX model: it holds no graph");
  return metadata;
}

/// The same of a file of ours, checked against the fingerprint.
inline std::map<std::string, std::string> read_metadata(const Bytes& bytes) {
  auto [found, mark, marks] = find_metadata(bytes);
  if (found.empty()) throw ForeignModelError("this ONNX model was not written by rnncore: export it with rnncore.export, or load it with a Reading");
  const std::string& version = found["format_version"];
  if (version.empty() || version.size() > 6 || version.find_first_not_of("0123456789") != std::string::npos || version == "0") {
    throw ModelFileError("rnncore.format_version in the file is '" + version + "', expected 1 to " + std::to_string(format_version));
  }
  if (std::stoi(version) > format_version) {
    throw FormatVersionError("the file has format " + version + ", this header reads formats up to " + std::to_string(format_version) + ": take a newer one");
  }
  const std::string& own = found["fingerprint"];
  if (marks != 1 || own.size() != 64) {
    throw TamperedModelError("the file does not hold exactly one rnncore.fingerprint: it was edited after export");
  }
  Bytes blank = bytes;
  std::fill_n(blank.begin() + static_cast<std::ptrdiff_t>(mark), 64, static_cast<unsigned char>('0'));
  if (hex(sha256(blank.data(), blank.size())) != own) {
    throw TamperedModelError("weights or graph were changed after export (the file says fingerprint " + own.substr(0, 12) +
                             "...): copy or export the file again");
  }
  return found;
}

// ---------------------------------------------------------------------------------------------------------- signature

using Sizes = std::map<std::string, std::int64_t>;

inline std::int64_t find(const Sizes& sizes, const std::string& name, std::int64_t missing) {
  const auto found = sizes.find(name);
  return found == sizes.end() ? missing : found->second;
}

/// One size of a shape: fixed, free, a function of a free one, or two in one.
struct Size {
  std::int64_t fixed = -1;
  std::string name;  // of the free axis that it is or follows
  bool is_function = false;
  std::int64_t times = 1, plus = 0, over = 1;
  std::vector<Size> flat;

  explicit Size(const Json& data) {
    if (data.kind == Json::Kind::number) fixed = data.integer();
    else if (data.kind == Json::Kind::text) name = data.string();
    else if (data.has("flat")) for (const Json& one : data["flat"].list()) flat.emplace_back(one);
    else {
      is_function = true;
      name = data["of"].string();
      times = data["times"].integer(), plus = data["plus"].integer(), over = data["over"].integer();
      if (over < 1) throw ModelFileError("a size in the signature is divided by less than 1");
    }
  }
  bool is_free() const { return fixed < 0 && flat.empty() && !is_function; }
  std::int64_t value(const Sizes& sizes) const {
    if (fixed >= 0) return fixed;
    if (!is_function) return find(sizes, name, 1);
    const std::int64_t whole = times * find(sizes, name, 0) + plus;
    return whole < 0 ? 0 : whole / over;
  }
  std::string text() const {
    if (fixed >= 0) return std::to_string(fixed);
    if (!flat.empty()) return flat[0].text() + " * " + flat[1].text();
    return is_function ? "f(" + name + ")" : name;
  }
};

struct Option {
  double usual = 0;
  std::optional<double> minimum, maximum, above;
};

/// One input or output.
struct Port {
  std::string name, type;
  std::vector<Size> inner;  // with two axes where the graph has them as one
  bool is_flat = false;
  std::optional<std::int64_t> least, limit;  // of ids: they are at least one and below the other
  std::int64_t chunk = 0;
  std::optional<Option> option;
  std::size_t batch_axis = 0;
  int time_axis = -1;

  explicit Port(const Json& data) : name(data["name"].string()), type(data["dtype"].string()) {
    dtype(type);
    for (const Json& one : data["shape"].list()) {
      const Size size(one);
      is_flat = is_flat || !size.flat.empty();
      if (size.flat.empty()) inner.push_back(size);
      else inner.insert(inner.end(), size.flat.begin(), size.flat.end());
    }
    if (data.has("limit")) limit = data["limit"].integer(), least = 0;
    if (data.has("minimum")) least = data["minimum"].integer();
    if (data.has("chunk")) chunk = data["chunk"].integer();
    const auto batch = std::find_if(inner.begin(), inner.end(), [](const Size& one) { return one.name == "batch" && one.is_free(); });
    if (batch == inner.end()) throw ModelFileError("'" + name + "' has no batch axis");
    batch_axis = static_cast<std::size_t>(batch - inner.begin());
    const auto time = std::find_if(inner.begin(), inner.end(), [](const Size& one) { return one.name == "time"; });
    if (time != inner.end()) time_axis = static_cast<int>(time - inner.begin());
  }

  bool timed() const { return time_axis >= 0; }
  std::size_t time() const { return static_cast<std::size_t>(time_axis); }
  /// Where time is in an array without the batch axis.
  std::size_t item_time() const { return time() - (time() > batch_axis ? 1 : 0); }
  std::int64_t steps(std::int64_t of) const { return inner[time()].value({{"time", of}}); }

  std::vector<std::int64_t> dims(const Sizes& sizes) const {
    std::vector<std::int64_t> found;
    for (const Size& size : inner) found.push_back(size.value(sizes));
    return found;
  }

  /// What stands for steps that nobody reads: 0, or the id nearest to it.
  double blank() const {
    const std::int64_t low = least ? std::max<std::int64_t>(0, *least) : 0;
    return static_cast<double>(limit ? std::min(low, *limit - 1) : low);
  }

  /// Samples one after the other as steps of a chunk each, where the model takes chunks.
  Array folded(const Array& array, bool item, std::vector<std::string>& problems) const {
    if (chunk == 0 || array.dims().size() + (item ? 2 : 1) != inner.size()) return array;
    const std::size_t axis = item ? item_time() : time();
    std::vector<std::int64_t> dims = array.dims();
    if (dims[axis] % chunk != 0) {
      problems.push_back("input '" + name + "' has " + std::to_string(dims[axis]) + " samples, the model takes chunks of " + std::to_string(chunk) + ": hand in whole ones");
    } else {
      dims[axis] /= chunk;
      dims.insert(dims.begin() + static_cast<std::ptrdiff_t>(axis) + 1, chunk);
    }
    return array.reshaped(dims);
  }

  /// The sizes of the free axes of an array; adds to `problems` what does not fit.  `item`: without the batch axis.
  Sizes read(const Array& array, bool item, std::vector<std::string>& problems) const {
    const std::string label = "input '" + name + "'";
    std::vector<Size> shape = inner;
    if (item) shape.erase(shape.begin() + static_cast<std::ptrdiff_t>(batch_axis));
    std::string wanted;
    for (const Size& size : shape) wanted += (wanted.empty() ? "" : ", ") + size.text();
    if (array.dtype() != type) {
      problems.push_back(label + " holds " + array.dtype() + ", the model expects " + type);
      return {};
    }
    bool fits = array.dims().size() == shape.size();
    for (std::size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i].fixed < 0 || shape[i].fixed == array.dims()[i];
    if (!fits) {
      problems.push_back(label + " has shape " + detail::text(array.dims()) + ", the model expects [" + wanted + "]");
      return {};
    }
    for (std::size_t i = 0; least && i < array.size(); ++i) {
      const double id = array.number(i);
      if (id >= static_cast<double>(*least) && (!limit || id < static_cast<double>(*limit))) continue;
      const std::string known = std::to_string(*least) + (limit ? " to " + std::to_string(*limit - 1) : " and more");
      problems.push_back(label + " holds the id " + std::to_string(static_cast<long long>(id)) + ", the model knows " + known);
      break;
    }
    if (option) check_range(array, label, problems);
    Sizes found;
    for (std::size_t i = 0; i < shape.size(); ++i) {
      if (shape[i].is_free()) found[shape[i].name] = array.dims()[i];
    }
    return found;
  }

 private:
  void check_range(const Array& array, const std::string& label, std::vector<std::string>& problems) const {
    const Option& own = *option;
    if (!own.minimum && !own.maximum && !own.above) return;
    for (std::size_t i = 0; i < array.size(); ++i) {
      const double x = array.number(i);
      const bool inside = std::isfinite(x) && (!own.minimum || x >= *own.minimum) && (!own.above || x > *own.above) && (!own.maximum || x <= *own.maximum);
      if (inside) continue;
      std::ostringstream words;
      words << label << " holds " << x << ", expected";
      if (own.minimum) words << " at least " << *own.minimum;
      if (own.above) words << " above " << *own.above;
      if (own.maximum) words << " at most " << *own.maximum;
      words << ", or nothing at all for " << own.usual;
      problems.push_back(words.str());
      return;
    }
  }
};

/// One recurrent state: graph input, graph output, and the value that a sequence starts from.
struct State {
  std::string name, output, type;
  std::vector<std::int64_t> item;  // sizes of one row
  std::size_t batch_axis = 0;
  std::int64_t size = 0;
  Array initial;

  explicit State(const Json& data)
      : name(data["name"].string()), output(data["output"].string()), type(data["dtype"].string()), size(data["size"].integer()) {
    if (data.has("shape")) {
      const auto& shape = data["shape"].list();
      for (std::size_t i = 0; i < shape.size(); ++i) {
        if (shape[i].kind == Json::Kind::text) batch_axis = i;
        else item.push_back(shape[i].integer());
      }
    } else {
      item = {size};
    }
    if (product(item) != size) throw ModelFileError("state '" + name + "' has another shape than size");
    initial = data.has("initial") ? from_bytes(from_base64(data["initial"].string()), type, item) : Array(type, item);
  }

  Array start(std::int64_t batch) const {
    return concat(std::vector<Array>(static_cast<std::size_t>(batch), with_axis(initial, batch_axis)), batch_axis);
  }
};

struct Axis {
  std::int64_t minimum = 0, maximum = -1, multiple = 1;
};

struct Signature {
  std::vector<Port> inputs, outputs;
  std::string lengths, pick_at, not_causal_because;
  std::vector<State> states;
  std::map<std::string, Axis> axes;
  bool causal = false, timed = false;
  std::int64_t stride = 1, overlap = 0;
  std::int64_t most_steps = std::numeric_limits<std::int64_t>::max();
  std::string timeless;  // the first output without time

  explicit Signature(const Json& data) {
    for (const Json& one : data["inputs"].list()) inputs.emplace_back(one);
    for (const Json& one : data["outputs"].list()) outputs.emplace_back(one);
    for (const Json& one : data["states"].list()) states.emplace_back(one);
    for (const Json& one : data["axes"].items) {
      axes[one["name"].string()] = {one["minimum"].integer(), one.has("maximum") ? one["maximum"].integer() : -1, one["multiple"].integer()};
    }
    for (const Json& one : data["options"].items) {
      const auto bound = [&one](const char* name) { return one.has(name) ? std::optional<double>(one[name].number()) : std::nullopt; };
      for (Port& port : inputs) {
        if (port.name == one["name"].string()) port.option = Option{one["default"].number(), bound("minimum"), bound("maximum"), bound("above")};
      }
    }
    if (data.has("lengths")) lengths = data["lengths"]["name"].string();
    if (data.has("pick")) pick_at = data["pick"]["at"].string();
    if (data.has("not_causal_because")) not_causal_because = data["not_causal_because"].string();
    causal = data["causal"].truth();
    if (data.has("stride")) stride = data["stride"].integer();
    if (data.has("overlap")) overlap = data["overlap"].integer();
    if (data.has("most_steps")) most_steps = data["most_steps"].integer();
    for (const Port& port : inputs) timed = timed || port.timed();
    for (const Port& port : outputs) if (!port.timed() && timeless.empty()) timeless = port.name;
  }

  /// Steps that a stream keeps at most for its next run.
  std::int64_t most_waiting() const { return overlap + stride - 1; }

  /// Of so many steps, those kept included, how many the next run takes: the overlap and whole strides, or none.
  std::int64_t run_of(std::int64_t steps) const { return steps > most_waiting() ? steps - (steps - overlap) % stride : 0; }

  /// Adds to `problems` the axes of whole arrays whose sizes are not what follows from those of other inputs.
  void check_followers(const std::map<std::string, Array>& arrays, const Sizes& sizes, std::vector<std::string>& problems) const {
    for (const Port& port : inputs) {
      const auto given = arrays.find(port.name);
      for (std::size_t i = 0; given != arrays.end() && i < port.inner.size(); ++i) {
        const Size& size = port.inner[i];
        const std::int64_t own = given->second.dims()[i];
        if (!size.is_function || sizes.count(size.name) == 0 || own == size.value(sizes)) continue;
        problems.push_back("input '" + port.name + "' has size " + std::to_string(own) + " along axis " + std::to_string(i) + ", expected " +
                           std::to_string(size.value(sizes)) + ", as another input has " + std::to_string(sizes.at(size.name)) +
                           " along axis '" + size.name + "'");
      }
    }
  }

  void check_sizes(const Sizes& sizes, std::vector<std::string>& problems) const {
    for (const auto& [name, size] : sizes) {
      const auto found = axes.find(name);
      if (found == axes.end()) continue;
      const Axis& axis = found->second;
      if (size >= axis.minimum && (axis.maximum < 0 || size <= axis.maximum) && size % axis.multiple == 0) continue;
      std::string words = "at least " + std::to_string(axis.minimum);
      if (axis.maximum >= 0) words += " and at most " + std::to_string(axis.maximum);
      if (axis.multiple > 1) words += ", a multiple of " + std::to_string(axis.multiple);
      problems.push_back("axis '" + name + "' has size " + std::to_string(size) + ", expected " + words);
    }
  }
};

// ----------------------------------------------------------------------------------------------------- files of others

}  // namespace detail

/// How to read a file that rnncore did not write; the words are those of Python's `load`.  docs/format.md, "Files of others".
struct Reading {
  std::map<std::string, std::string> states;  // the output that each state becomes, by name of the input; empty: there is none
  std::map<std::string, std::string> axes{};  // words for the axes, such as "batch time features"
  Arrays initial{};                           // what states begin at, without the batch axis
  Arrays constants{};                         // inputs that never change
  std::optional<std::int64_t> chunk{};        // samples of one call, where they are fixed
  std::int64_t context = 0;                   // samples of the chunk before that the graph wants to see again
};

namespace detail {

/// The numbers of an array in another dtype, if each is there in it.  Floats may be rounded.
inline Array converted(const Array& array, const std::string& type, const std::string& label) {
  if (array.dtype() == type) return array;
  Array made(type, array.dims());
  for (std::size_t i = 0; i < array.size(); ++i) {
    const double x = array.number(i);
    if (type == "float32") made.data<float>()[i] = static_cast<float>(x);
    else if (type == "float64") made.data<double>()[i] = x;
    else if (type == "float16") reinterpret_cast<std::uint16_t*>(made.bytes().data())[i] = to_half(x);
    else if (std::abs(x) < 9007199254740992.0) {
      const auto whole = static_cast<std::int64_t>(x);  // little-endian: the lowest bytes come first
      std::memcpy(made.bytes().data() + i * dtype(type).bytes, &whole, dtype(type).bytes);
    }
    if (!made.is_float() && made.number(i) != x) throw InputError(label + " holds " + array.dtype() + " that do not fit " + type);
  }
  return made;
}

/// The axes in another order: axis i of the answer is axis order[i] of the array.
inline Array transposed(const Array& array, const std::vector<std::size_t>& order) {
  std::vector<std::int64_t> dims;
  std::vector<std::size_t> steps;
  for (const std::size_t axis : order) {
    dims.push_back(array.dims()[axis]);
    steps.push_back(static_cast<std::size_t>(product(array.dims(), axis + 1)));
  }
  Array made(array.dtype(), dims);
  const std::size_t bytes = dtype(array.dtype()).bytes;
  std::vector<std::int64_t> at(order.size(), 0);
  std::size_t from = 0;
  for (std::size_t i = 0; i < array.size(); ++i) {
    std::memcpy(made.bytes().data() + i * bytes, array.bytes().data() + from * bytes, bytes);
    for (std::size_t axis = at.size(); axis-- > 0;) {
      from += steps[axis];
      if (++at[axis] < dims[axis]) break;
      from -= steps[axis] * static_cast<std::size_t>(dims[axis]);
      at[axis] = 0;
    }
  }
  return made;
}

/// One size in a foreign graph: a number, or free with a name.
struct Dim {
  std::int64_t fixed = -1;
  std::string name{};
  bool free() const { return fixed < 0; }
  std::string text() const { return free() ? name : std::to_string(fixed); }
};

inline std::string text(const std::vector<Dim>& dims) {
  std::string joined;
  for (const Dim& one : dims) joined += (joined.empty() ? "" : ", ") + one.text();
  return "[" + joined + "]";
}

/// An input or output as the graph says it; `type` is empty for what is no tensor of numbers.
struct GraphValue {
  std::string name, type;
  bool has_rank = false;
  std::vector<Dim> dims;
};

/// Inputs and outputs of a graph, read from the bytes of its file; `defaults`: names of inputs with a value in the graph.
struct GraphValues {
  std::vector<GraphValue> inputs, outputs;
  std::set<std::string> defaults;

  explicit GraphValues(const Bytes& bytes) {
    try {
      each(bytes, 0, bytes.size(), 7, [&](std::size_t begin, std::size_t end) {
        each(bytes, begin, end, 11, [&](std::size_t a, std::size_t b) { inputs.push_back(value(bytes, a, b)); });
        each(bytes, begin, end, 12, [&](std::size_t a, std::size_t b) { outputs.push_back(value(bytes, a, b)); });
        each(bytes, begin, end, 5, [&](std::size_t a, std::size_t b) { defaults.insert(string(bytes, a, b, 8)); });
      });
    } catch (const Fields::Malformed&) {
      throw NotOnnxError("the file is no ONNX model, or is truncated or damaged: copy it again");
    }
  }

  const GraphValue* input(const std::string& name) const { return find(inputs, name); }
  const GraphValue* output(const std::string& name) const { return find(outputs, name); }

 private:
  static const GraphValue* find(const std::vector<GraphValue>& values, const std::string& name) {
    const auto found = std::find_if(values.begin(), values.end(), [&name](const GraphValue& one) { return one.name == name; });
    return found == values.end() ? nullptr : &*found;
  }

  template <class Run>
  static void each(const Bytes& bytes, std::size_t begin, std::size_t end, std::uint64_t wanted, const Run& run) {
    for (Fields fields(bytes, begin, end); fields.next();) if (fields.number == wanted) run(fields.begin, fields.end);
  }
  static std::string string(const Bytes& bytes, std::size_t begin, std::size_t end, std::uint64_t wanted) {
    std::string found;
    each(bytes, begin, end, wanted, [&](std::size_t a, std::size_t b) { found.assign(reinterpret_cast<const char*>(bytes.data()) + a, b - a); });
    return found;
  }
  static std::int64_t whole(const Bytes& bytes, std::size_t begin, std::size_t end) {
    std::uint64_t number = 0;
    for (std::size_t i = begin; i < end && i < begin + 9; ++i) number |= static_cast<std::uint64_t>(bytes[i] & 127) << (7 * (i - begin));
    return static_cast<std::int64_t>(number);
  }

  /// ValueInfoProto: name (1), type (2); TypeProto: tensor_type (1); of it elem_type (1), shape (2); of that dim (1): dim_value, dim_param.
  static GraphValue value(const Bytes& bytes, std::size_t begin, std::size_t end) {
    GraphValue made;
    made.name = string(bytes, begin, end, 1);
    each(bytes, begin, end, 2, [&](std::size_t a, std::size_t b) {
      each(bytes, a, b, 1, [&](std::size_t c, std::size_t d) {
        each(bytes, c, d, 1, [&](std::size_t e, std::size_t f) {
          try {
            made.type = dtype_name(static_cast<int>(whole(bytes, e, f)));
          } catch (const InputError&) {
            made.type.clear();
          }
        });
        each(bytes, c, d, 2, [&](std::size_t e, std::size_t f) {
          made.has_rank = true;
          each(bytes, e, f, 1, [&](std::size_t g, std::size_t h) {
            Dim dim{-1, string(bytes, g, h, 2)};
            each(bytes, g, h, 1, [&](std::size_t i, std::size_t k) { dim.fixed = whole(bytes, i, k); });
            if (dim.fixed <= 0) dim.fixed = -1;
            // the names batch and time mean nothing when the graph says them
            if (dim.name.empty() || dim.name == "batch" || dim.name == "time") dim.name += "?";
            made.dims.push_back(dim);
          });
        });
      });
    });
    return made;
  }
};

/// An input, output or state in the graph: "batch" and "time" where these are free; positions of the two, or -1.
struct GraphPort {
  std::string name, type;
  std::vector<Dim> dims;
  int batch = -1, time = -1;

  bool alone() const { return batch < 0 || dims[static_cast<std::size_t>(batch)].fixed == 1; }

  std::vector<Dim> rest() const {
    std::vector<Dim> found;
    for (std::size_t i = 0; i < dims.size(); ++i) if (static_cast<int>(i) != batch && static_cast<int>(i) != time) found.push_back(dims[i]);
    return found;
  }

  /// [batch, time, ...], or [batch, ...] without a time axis, as the graph wants it; and back.
  Array to_graph(const Array& rows) const { return transposed(batch < 0 ? without_axis(rows, 0) : rows, order()); }
  Array from_graph(const Array& value) const {
    const std::vector<std::size_t> places = order();
    std::vector<std::size_t> back(places.size());
    for (std::size_t i = 0; i < places.size(); ++i) back[places[i]] = i;
    const Array items = transposed(value, back);
    return batch < 0 ? with_axis(items, 0) : items;
  }
  bool fits(const std::vector<std::int64_t>& sizes) const {
    bool same = sizes.size() == dims.size();
    for (std::size_t i = 0; same && i < dims.size(); ++i) same = dims[i].free() || dims[i].fixed == sizes[i];
    return same;
  }

 private:
  /// For each axis of the graph the one that it is in [batch, time, ...].
  std::vector<std::size_t> order() const {
    std::vector<std::size_t> places(dims.size());
    std::size_t next = 0;
    for (const int first : {batch, time}) if (first >= 0) places[static_cast<std::size_t>(first)] = next++;
    for (std::size_t i = 0; i < dims.size(); ++i) if (static_cast<int>(i) != batch && static_cast<int>(i) != time) places[i] = next++;
    return places;
  }
};

struct GraphState {
  GraphPort port;
  std::string output;
  std::vector<std::int64_t> item;
  std::optional<Array> start;
};

/// All that is foreign about a model: makes its graph look like one of ours, arrays [batch, time, ...] and states [batch, ...].  A step
/// of an input of chunks is one call of the graph; so is a row, where the graph takes one at a time.
class Adapter {
 public:
  using Run = std::function<Arrays(const Arrays& feeds, const std::vector<std::string>& wanted)>;

  /// Raises ForeignModelError that lists every problem and what the graph has.
  Adapter(const Bytes& bytes, const Reading& reading, const Run& run) : reading_(reading), graph_(bytes), run_(run) {
    check_names();
    raise();
    read_inputs();
    raise();
    read_outputs();
    raise();
  }

  /// The signature that a file of ours would have.
  std::string signature() const {
    std::string inputs, outputs, states;
    const auto add = [](std::string& list, const std::string& one) { list += (list.empty() ? "" : ", ") + one; };
    for (const GraphPort& port : ports_) add(inputs, described(port, shape_of(port), chunk_of(port)));
    for (const GraphPort& port : outputs_) {
      add(outputs, described(port, std::string(chunked_ || port.time >= 0 ? "\"batch\", \"time\"" : "\"batch\"") + listed(port.rest())));
    }
    const auto state = [&](const std::string& name, const std::string& output, const std::string& type, const std::vector<std::int64_t>& item, const Array* start) {
      std::string shape = "\"batch\"";
      for (const std::int64_t size : item) shape += ", " + std::to_string(size);
      add(states, "{\"name\": " + quoted(name) + ", \"output\": " + quoted(output) + ", \"dtype\": \"" + type + "\", \"size\": " + std::to_string(product(item)) +
                      ", \"shape\": [" + shape + "], \"initial\": " + (start != nullptr ? "\"" + to_base64(start->bytes()) + "\"" : "null") + "}");
    };
    for (const GraphState& one : states_) state(one.port.name, one.output, one.port.type, one.item, one.start ? &*one.start : nullptr);
    for (const GraphPort& port : ports_) {
      if (reading_.context == 0 || sizes_.count(port.name) == 0) continue;
      std::vector<std::int64_t> item{reading_.context};
      for (const Dim& one : port.rest()) item.push_back(one.fixed);
      state(context_of(port), context_of(port), port.type, item, nullptr);
    }
    return "{\"inputs\": [" + inputs + "], \"outputs\": [" + outputs + "], \"states\": [" + states + "], \"lengths\": null, \"causal\": " +
           (states_.empty() ? "false" : "true") + ", \"not_causal_because\": \"it was loaded as a model without states\"}";
  }

  /// All that tells one reading of a graph from another.
  std::string described() const {
    std::string said = signature();
    for (const auto& [name, words] : reading_.axes) said += "\naxes " + quoted(name) + " " + quoted(words);
    for (const auto& [name, array] : constants_) said += "\nconstant " + quoted(name) + " " + array.dtype() + " " + text(array.dims()) + " " + to_base64(array.bytes());
    return said + "\nchunk " + std::to_string(reading_.chunk.value_or(0)) + " context " + std::to_string(reading_.context);
  }

  std::set<std::string> inputs() const {
    std::set<std::string> names;
    for (const GraphPort& port : ports_) {
      names.insert(port.name);
      if (reading_.context != 0) names.insert(context_of(port));
    }
    for (const GraphState& state : states_) names.insert(state.port.name);
    return names;
  }
  std::set<std::string> outputs() const {
    std::set<std::string> names;
    for (const GraphPort& port : ports_) if (reading_.context != 0) names.insert(context_of(port));
    for (const GraphPort& port : outputs_) names.insert(port.name);
    for (const GraphState& state : states_) names.insert(state.output);
    return names;
  }

  /// Whole arrays from the given states; answers and final states.
  Arrays call(const Arrays& arrays) const {
    const std::int64_t batch = arrays.at(ports_.front().name).dims()[0];
    if (!alone_ || batch == 1) return together(arrays);
    std::map<std::string, std::vector<Array>> parts;
    for (std::int64_t i = 0; i < batch; ++i) {
      Arrays row;
      for (const auto& [name, array] : arrays) row[name] = slice(array, 0, i, i + 1);
      for (auto& [name, array] : together(row)) parts[name].push_back(std::move(array));
    }
    Arrays joined;
    for (const auto& [name, all] : parts) joined[name] = concat(all, 0);
    return joined;
  }

 private:
  static std::string context_of(const GraphPort& port) { return port.name + ".context"; }

  static std::string quoted(const std::string& text) {
    std::string made = "\"";
    for (const char letter : text) {
      const auto code = static_cast<unsigned char>(letter);
      if (letter == '"' || letter == '\\') made += '\\';
      if (code >= 0x20) made += letter;
      else (made += "\\u00") += {"0123456789abcdef"[code >> 4], "0123456789abcdef"[code & 15]};
    }
    return made + "\"";
  }
  static std::string listed(const std::vector<Dim>& dims) {
    std::string made;
    for (const Dim& one : dims) made += ", " + (one.free() ? quoted(one.name) : std::to_string(one.fixed));
    return made;
  }
  static std::string described(const GraphPort& port, const std::string& shape, std::int64_t chunk = 0) {
    return "{\"name\": " + quoted(port.name) + ", \"dtype\": \"" + port.type + "\", \"shape\": [" + shape + "]" + (chunk ? ", \"chunk\": " + std::to_string(chunk) : "") + "}";
  }
  std::string shape_of(const GraphPort& port) const {
    if (has_time_ && port.time < 0) return "\"batch\"" + listed(port.rest());
    const std::int64_t chunk = chunk_of(port);
    return "\"batch\", \"time\"" + (chunk ? ", " + std::to_string(chunk) : "") + listed(port.rest());
  }
  /// Samples of one step, 0 where a step is none of several.
  std::int64_t chunk_of(const GraphPort& port) const {
    const auto chunk = sizes_.find(port.name);
    return chunk != sizes_.end() && (chunk->second > 1 || reading_.context != 0) ? chunk->second : 0;
  }

  void raise() {
    if (problems_.empty()) return;
    for (const auto& [role, values] : {std::make_pair("inputs", &graph_.inputs), std::make_pair("outputs", &graph_.outputs)}) {
      std::string names;
      for (const GraphValue& one : *values) names += (names.empty() ? "" : ", ") + one.name + " " + (one.type.empty() ? "no tensor" : one.type) + (one.has_rank ? text(one.dims) : "");
      problems_.push_back(std::string("its ") + role + " are " + names);
    }
    raise_all<ForeignModelError>(problems_, "the model cannot be read as it was said");
  }

  void check_names() {
    const auto problem = [this](const std::string& text) { problems_.push_back(text); };
    if (reading_.chunk && *reading_.chunk < 1) problem("chunk is " + std::to_string(*reading_.chunk) + ", expected at least 1, or none");
    if (reading_.context < 0) problem("context is " + std::to_string(reading_.context) + ", expected at least 0");
    std::set<std::string> used;
    for (const auto& [name, output] : reading_.states) {
      if (graph_.input(name) == nullptr) problem("there is no input '" + name + "' to be a state");
      if (graph_.output(output) == nullptr) problem("there is no output '" + output + "' for the state '" + name + "'");
      if (!used.insert(output).second) problem("the output '" + output + "' is used for several states");
      if (reading_.constants.count(name) != 0) problem("'" + name + "' is a state and a constant");
    }
    for (const auto& [name, array] : reading_.constants) if (graph_.input(name) == nullptr) problem("there is no input '" + name + "' to be constant");
    for (const auto& [name, array] : reading_.initial) if (reading_.states.count(name) == 0) problem("initial is given for '" + name + "', which is no state");
    for (const auto& [name, words] : reading_.axes) {
      if (graph_.input(name) == nullptr && graph_.output(name) == nullptr) problem("axes are given for '" + name + "', which is no input or output");
      for (const char* word : {"batch", "time"}) {
        const auto all = words_of(name);
        if (std::count(all.begin(), all.end(), word) > 1) problem("axes of '" + name + "' say '" + word + "' twice");
      }
    }
  }

  std::vector<std::string> words_of(const std::string& name) const {
    std::vector<std::string> words;
    const auto found = reading_.axes.find(name);
    std::istringstream source(found == reading_.axes.end() ? "" : found->second);
    for (std::string word; source >> word;) words.push_back(word);
    return words;
  }
  static int place(const std::vector<std::string>& words, const char* word) {
    const auto found = std::find(words.begin(), words.end(), word);
    return found == words.end() ? -1 : static_cast<int>(found - words.begin());
  }

  /// A port with the axes that the caller names; `batch` and `time` are left alone where nobody named them.
  GraphPort port_of(const GraphValue& value) {
    GraphPort port{value.name, value.type, value.dims, -1, -1};
    if (value.type.empty()) problems_.push_back("'" + value.name + "' holds no numbers that this header can handle");
    if (reading_.axes.count(value.name) == 0) return port;
    const auto words = words_of(value.name);
    if (!value.has_rank) port.dims.assign(words.size(), Dim{-1, "?"});
    if (words.size() != port.dims.size()) {
      problems_.push_back("axes of '" + value.name + "' name " + std::to_string(words.size()) + " axes, the graph has " + text(port.dims));
      return port;
    }
    for (std::size_t i = 0; i < words.size(); ++i) {
      if (words[i].size() > 9 || words[i].find_first_not_of("0123456789") != std::string::npos) continue;
      const std::int64_t told = std::stoll(words[i]);
      if (!port.dims[i].free() && port.dims[i].fixed != told) problems_.push_back("axes of '" + value.name + "' say " + words[i] + ", the graph has " + text(value.dims));
      port.dims[i].fixed = told;
    }
    port.batch = place(words, "batch"), port.time = place(words, "time");
    return port;
  }
  static void name_axes(GraphPort& port) {
    if (port.batch >= 0) port.dims[static_cast<std::size_t>(port.batch)].name = "batch";
    if (port.time >= 0) port.dims[static_cast<std::size_t>(port.time)].name = "time";
  }
  bool named(const std::string& name) const { return reading_.axes.count(name) != 0; }

  void read_inputs() {
    std::set<std::string> batch_names;
    for (const auto& [name, output] : reading_.states) {
      states_.push_back(read_state(*graph_.input(name), output));
      const GraphPort& port = states_.back().port;
      const GraphValue& value = *graph_.input(name);
      if (port.batch >= 0 && value.has_rank && value.dims[static_cast<std::size_t>(port.batch)].free()) batch_names.insert(value.dims[static_cast<std::size_t>(port.batch)].name);
      alone_ = alone_ || port.alone();
    }
    batch_names.erase("?");
    const bool one_row = alone_;
    for (const GraphValue& value : graph_.inputs) {
      const auto constant = reading_.constants.find(value.name);
      if (reading_.states.count(value.name) != 0 || (graph_.defaults.count(value.name) != 0 && !named(value.name) && constant == reading_.constants.end())) continue;
      GraphPort port = port_of(value);
      if (constant != reading_.constants.end()) {
        if (value.type.empty()) continue;
        constants_[value.name] = converted(constant->second, value.type, "the constant '" + value.name + "'");
        if (value.has_rank && !GraphPort{value.name, value.type, value.dims}.fits(constant->second.dims())) {
          problems_.push_back("the constant '" + value.name + "' has shape " + text(constant->second.dims()) + ", the graph has " + text(value.dims));
        }
        continue;
      }
      if (port.dims.empty()) problems_.push_back("input '" + value.name + "' is a single number: give it as one of the constants");
      if (!named(value.name)) {
        for (std::size_t i = port.dims.size(); i-- > 0;) if (port.dims[i].free() && batch_names.count(port.dims[i].name) != 0) port.batch = static_cast<int>(i);
        if (port.batch < 0 && !port.dims.empty() && (port.dims[0].fixed == 1 || (!one_row && port.dims[0].free()))) port.batch = 0;
      }
      name_axes(port);
      ports_.push_back(port);
    }
    if (ports_.empty()) problems_.push_back("every input is a state or a constant: there is nothing left to push");
    find_time();
    find_chunks();
    for (GraphPort& port : ports_) {
      const auto size = sizes_.find(port.name);
      if (size != sizes_.end()) port.dims[static_cast<std::size_t>(port.time)] = {size->second + reading_.context, "time"};
      alone_ = alone_ || port.alone();
      has_time_ = has_time_ || port.time >= 0;
      check_batch(port);
      if (reading_.context != 0 && graph_.input(context_of(port)) != nullptr) problems_.push_back("context needs the name '" + context_of(port) + "', which an input has");
      for (const Dim& one : port.rest()) {
        if (reading_.context != 0 && one.free()) problems_.push_back("input '" + port.name + "' has an axis '" + one.name + "' of unknown size: say it in axes");
      }
    }
    for (const GraphState& state : states_) check_batch(state.port);
    chunked_ = !sizes_.empty() || !has_time_;
  }

  void check_batch(const GraphPort& port) {
    const std::int64_t size = port.batch < 0 ? 1 : port.dims[static_cast<std::size_t>(port.batch)].fixed;
    if (size > 1) problems_.push_back("the batch axis of '" + port.name + "' has the fixed size " + std::to_string(size) + ", expected a free one or 1: name its axes");
  }

  /// Time axes of inputs of which the caller names no axes: the first free one, else that of a chunk of fixed size.
  void find_time() {
    bool any = false;
    for (GraphPort& port : ports_) {
      for (std::size_t i = 0; !named(port.name) && port.time < 0 && i < port.dims.size(); ++i) {
        if (static_cast<int>(i) != port.batch && port.dims[i].free()) port.time = static_cast<int>(i);
      }
      name_axes(port);
      any = any || port.time >= 0;
    }
    for (GraphPort& port : ports_) {
      const std::size_t others = port.dims.size() - (port.batch >= 0 ? 1 : 0);
      if (any || named(port.name) || !(others > 1 || (others == 1 && (reading_.chunk || reading_.context != 0)))) continue;
      port.time = port.batch == 0 ? 1 : 0;
      name_axes(port);
    }
  }

  /// Samples of one call, without the context, of each input whose chunks have a fixed size.
  void find_chunks() {
    std::string free;
    for (const GraphPort& port : ports_) {
      if (port.time < 0) continue;
      const Dim& dim = port.dims[static_cast<std::size_t>(port.time)];
      if (dim.free() && !reading_.chunk) {
        free = port.name;
        continue;
      }
      const std::int64_t size = dim.free() ? *reading_.chunk : dim.fixed - reading_.context;
      sizes_[port.name] = size;
      if (size < 1) problems_.push_back("input '" + port.name + "' takes " + dim.text() + " samples, context " + std::to_string(reading_.context) + " leaves none");
      else if (reading_.chunk && *reading_.chunk != size) problems_.push_back("input '" + port.name + "' takes " + dim.text() + " samples a call, not chunk " + std::to_string(*reading_.chunk) + " and context " + std::to_string(reading_.context));
    }
    if (!free.empty() && !sizes_.empty()) problems_.push_back("input '" + free + "' takes any number of steps, others a fixed one: say chunk");
    if (sizes_.empty() && (reading_.chunk || reading_.context != 0)) problems_.emplace_back("chunk and context need an input with a time axis, and context a chunk of fixed size");
  }

  /// A state with its batch axis; that of a graph without free axes is the first of size 1, if there is one.
  GraphState read_state(const GraphValue& value, const std::string& output) {
    GraphState state{port_of(value), output, {}, {}};
    GraphPort& port = state.port;
    for (const bool free : {true, false}) {
      for (std::size_t i = 0; !named(value.name) && port.batch < 0 && i < port.dims.size(); ++i) {
        if (free ? port.dims[i].free() : port.dims[i].fixed == 1) port.batch = static_cast<int>(i);
      }
    }
    port.time = -1;
    name_axes(port);
    const auto initial = reading_.initial.find(value.name);
    if (initial != reading_.initial.end() && !value.type.empty()) {
      state.start = converted(initial->second, value.type, "initial of '" + value.name + "'");
      GraphPort item{value.name, value.type, port.rest()};
      if (!item.fits(state.start->dims())) problems_.push_back("initial of '" + value.name + "' has shape " + text(state.start->dims()) + ", one sequence has " + text(item.dims));
      else for (std::size_t i = 0, k = 0; i < port.dims.size(); ++i) if (static_cast<int>(i) != port.batch) port.dims[i].fixed = state.start->dims()[k++];
    }
    for (const Dim& one : port.rest()) state.item.push_back(one.fixed);
    if (std::count(state.item.begin(), state.item.end(), -1) != 0) {
      problems_.push_back("the size of state '" + value.name + "' " + text(port.dims) + " is not known: say which axis is the batch and the sizes of others, axes '... batch ...'");
    }
    return state;
  }

  struct Sample {
    std::int64_t batch, steps;
    std::map<std::string, std::vector<std::int64_t>> shapes;
  };

  /// Ports of all outputs that are no states, learnt by running the graph twice on zeros of different sizes.
  void read_outputs() {
    std::vector<const GraphValue*> own;
    std::vector<std::string> wanted;
    for (const GraphValue& value : graph_.outputs) {
      const auto same = [&value](const GraphState& state) { return state.output == value.name; };
      if (std::none_of(states_.begin(), states_.end(), same)) own.push_back(&value);
      wanted.push_back(value.name);
    }
    if (own.empty()) return problems_.push_back("every output is a state: there is nothing to return");
    const std::vector<Sample> samples = sampled(wanted);
    if (samples.empty()) return;
    for (const GraphState& state : states_) {
      for (const Sample& sample : samples) {
        std::vector<std::int64_t> expected;
        for (const Dim& one : state.port.dims) expected.push_back(one.free() ? sample.batch : one.fixed);
        const auto& found = sample.shapes.at(state.output);
        if (found == expected) continue;
        problems_.push_back("state '" + state.port.name + "' goes in as " + text(expected) + ", '" + state.output + "' comes out as " + text(found) + ": pair other names, or say its axes");
        break;
      }
    }
    for (const GraphValue* value : own) read_output(*value, samples[0], samples[1]);
  }

  std::vector<Sample> sampled(const std::vector<std::string>& wanted) {
    const std::vector<std::pair<std::int64_t, std::int64_t>> tries = chunked_ ? std::vector<std::pair<std::int64_t, std::int64_t>>{{1, 1}} : std::vector<std::pair<std::int64_t, std::int64_t>>{{5, 7}, {61, 67}, {1009, 1013}};
    std::string told;
    for (const auto& [first, second] : tries) {
      std::vector<Sample> samples;
      try {
        for (const std::int64_t steps : {first, second}) {
          Sample sample{alone_ ? 1 : static_cast<std::int64_t>(2 + samples.size()), steps, {}};
          Arrays feeds = constants_;
          const auto put = [&](const GraphPort& port) {
            std::vector<std::int64_t> dims;
            for (const Dim& one : port.dims) dims.push_back(!one.free() ? one.fixed : one.name == "batch" ? sample.batch : one.name == "time" ? steps : 1);
            feeds[port.name] = Array(port.type, dims);
          };
          for (const GraphPort& port : ports_) put(port);
          for (const GraphState& state : states_) put(state.port);
          for (const auto& [name, array] : run_(feeds, wanted)) sample.shapes[name] = array.dims();
          samples.push_back(std::move(sample));
        }
        return samples;
      } catch (const InputError& error) {
        told = error.what();
      }
    }
    problems_.push_back("onnxruntime could not run it on zeros: " + told);
    return {};
  }

  void read_output(const GraphValue& value, const Sample& one, const Sample& two) {
    const auto &first = one.shapes.at(value.name), &second = two.shapes.at(value.name);
    GraphPort port{value.name, value.type, {}, -1, -1};
    const auto words = words_of(value.name);
    if (value.type.empty()) problems_.push_back("output '" + value.name + "' holds no numbers that this header can handle");
    if (first.size() != second.size() || (named(value.name) && words.size() != first.size())) {
      return problems_.push_back("output '" + value.name + "' has shape " + text(first) + ", then " + text(second) + (named(value.name) ? ", its axes have " + std::to_string(words.size()) + " words" : ""));
    }
    const auto follows = [&](std::size_t axis, std::int64_t a, std::int64_t b) { return axis < first.size() && first[axis] == a && second[axis] == b; };
    const auto follow = [&](std::int64_t a, std::int64_t b, int without) {
      for (std::size_t i = 0; i < first.size(); ++i) if (static_cast<int>(i) != without && follows(i, a, b)) return static_cast<int>(i);
      return -1;
    };
    port.batch = named(value.name) ? place(words, "batch") : alone_ ? (follows(0, 1, 1) ? 0 : -1) : follow(one.batch, two.batch, -1);
    if (port.batch < 0 ? !alone_ : !follows(static_cast<std::size_t>(port.batch), one.batch, two.batch)) {
      problems_.push_back("output '" + value.name + "' has no batch axis: " + text(first) + " from a batch of " + std::to_string(one.batch) + ": say its axes");
    }
    if (named(value.name)) {
      port.time = place(words, "time");
      if (port.time >= 0 && !follows(static_cast<std::size_t>(port.time), one.steps, two.steps)) {
        if (!chunked_) problems_.push_back("axes of '" + value.name + "' call axis " + std::to_string(port.time) + " time, but it has " + std::to_string(first[static_cast<std::size_t>(port.time)]) + " of " + std::to_string(one.steps) + " steps");
        port.time = -1;  // several samples for each chunk: an axis like any other
      }
    } else if (!chunked_) {
      port.time = follow(one.steps, two.steps, port.batch);
    } else {
      const auto single = std::find_if(ports_.begin(), ports_.end(), [this](const GraphPort& own) { return own.time >= 0 && sizes_.at(own.name) == 1 && reading_.context == 0; });
      if (single != ports_.end() && single->time != port.batch && follows(static_cast<std::size_t>(single->time), 1, 1)) port.time = single->time;
    }
    for (std::size_t i = 0; i < first.size(); ++i) {
      const bool is_batch = static_cast<int>(i) == port.batch, is_time = static_cast<int>(i) == port.time;
      if (is_batch) port.dims.push_back(alone_ ? Dim{1, "batch"} : Dim{-1, "batch"});
      else if (is_time && !chunked_) port.dims.push_back({-1, "time"});
      else port.dims.push_back({first[i], ""});
      if (is_batch || is_time || first[i] == second[i]) continue;
      problems_.push_back("output '" + value.name + "' has size " + std::to_string(first[i]) + " after " + std::to_string(one.steps) + " steps and " + std::to_string(second[i]) + " after " +
                          std::to_string(two.steps) + ": this header reads outputs that are as long as their input");
    }
    outputs_.push_back(port);
  }

  Arrays together(const Arrays& arrays) const {
    if (!chunked_) return once(arrays);
    Arrays now = arrays, finals;
    std::map<std::string, std::vector<Array>> columns;
    const auto timed = [this](const GraphPort& port) { return !has_time_ || port.time >= 0; };
    const auto first = std::find_if(ports_.begin(), ports_.end(), timed);
    for (std::int64_t t = 0; t < arrays.at(first->name).dims()[1]; ++t) {
      for (const GraphPort& port : ports_) {
        if (!timed(port)) continue;
        Array& step = now[port.name] = without_axis(slice(arrays.at(port.name), 1, t, t + 1), 1);
        if (reading_.context == 0 || sizes_.count(port.name) == 0) continue;
        step = concat({now.at(context_of(port)), step}, 1);
        finals[context_of(port)] = now[context_of(port)] = slice(step, 1, step.dims()[1] - reading_.context, step.dims()[1]);
      }
      Arrays values = once(now);
      for (const GraphPort& port : outputs_) columns[port.name].push_back(with_axis(values.at(port.name), 1));
      for (const GraphState& state : states_) now[state.port.name] = finals[state.output] = values.at(state.output);
    }
    for (const auto& [name, all] : columns) finals[name] = concat(all, 1);
    return finals;
  }

  Arrays once(const Arrays& arrays) const {
    Arrays feeds = constants_, answers;
    for (const GraphPort& port : ports_) {
      const Array& rows = arrays.at(port.name);
      // A step of a chunked model has no time axis of its own; the graph may want one of size 1.
      const bool missing = chunked_ && port.time >= 0 && rows.dims().size() < port.dims.size() + (port.batch < 0 ? 1 : 0);
      feeds[port.name] = port.to_graph(missing ? with_axis(rows, 1) : rows);
    }
    std::vector<std::string> wanted;
    for (const GraphState& state : states_) {
      feeds[state.port.name] = state.port.to_graph(arrays.at(state.port.name));
      wanted.push_back(state.output);
    }
    for (const GraphPort& port : outputs_) wanted.push_back(port.name);
    const Arrays values = run_(feeds, wanted);
    const auto fitting = [&values](const GraphPort& port, const std::string& name) -> const Array& {
      const Array& value = values.at(name);
      if (!port.fits(value.dims())) throw InputError("the graph answered " + name + " with shape " + text(value.dims()) + ", its trial run showed " + text(port.dims));
      return value;
    };
    for (const GraphPort& port : outputs_) {
      const Array rows = port.from_graph(fitting(port, port.name));
      answers[port.name] = chunked_ && port.time >= 0 ? without_axis(rows, 1) : rows;
    }
    for (const GraphState& state : states_) answers[state.output] = state.port.from_graph(fitting(state.port, state.output));
    return answers;
  }

  const Reading reading_;
  const GraphValues graph_;
  const Run run_;
  std::vector<std::string> problems_;
  std::vector<GraphPort> ports_, outputs_;
  std::vector<GraphState> states_;
  Arrays constants_;
  std::map<std::string, std::int64_t> sizes_;  // of chunks
  bool alone_ = false, has_time_ = false, chunked_ = false;
};

// -------------------------------------------------------------------------------------------------------------- model

/// One call of a graph.
inline Arrays run_graph(const Api& api, void* session, const Arrays& feeds, const std::vector<std::string>& outputs) {
  std::vector<const char*> names, wanted;
  std::vector<Handle> values, kept;
  std::vector<void*> raw;
  for (const auto& [name, array] : feeds) {
    names.push_back(name.c_str());
    auto* memory = const_cast<unsigned char*>(array.bytes().data());  // onnxruntime does not write into inputs
    values.push_back(api.tensor(memory, array.bytes().size(), array.dims(), dtype(array.dtype()).onnx));
    raw.push_back(values.back().get());
  }
  for (const std::string& name : outputs) wanted.push_back(name.c_str());
  std::vector<void*> answers(wanted.size(), nullptr);
  try {
    api.call(Slot::Run, session, static_cast<void*>(nullptr), names.data(), raw.data(), names.size(), wanted.data(), wanted.size(), answers.data());
  } catch (const InputError& error) {
    throw InputError(std::string("onnxruntime could not run the model on this input: ") + error.what());
  }
  for (void* answer : answers) kept.push_back(api.held(answer, Slot::ReleaseValue));
  Arrays results;
  for (std::size_t i = 0; i < wanted.size(); ++i) {
    const auto [type, dims] = api.described(answers[i]);
    Array array(dtype_name(type), dims);
    if (array.size() != 0) std::memcpy(array.bytes().data(), api.memory_of(answers[i]), array.bytes().size());
    results[outputs[i]] = std::move(array);
  }
  return results;
}

/// What all copies of a model and its streams share; nothing of it changes.
class Engine {
 public:
  /// `foreign`: for a file of others, how its graph is called.
  Engine(std::shared_ptr<const Api> own, Handle open, std::map<std::string, std::string> texts, std::shared_ptr<const Adapter> foreign = nullptr)
      : api(std::move(own)), session(std::move(open)), metadata(std::move(texts)), signature(Json::parse(metadata.at("signature"))), adapter_(std::move(foreign)) {
    const auto names = api->names(session.get(), Slot::SessionGetInputCount, Slot::SessionGetInputName);
    const auto answers = api->names(session.get(), Slot::SessionGetOutputCount, Slot::SessionGetOutputName);
    graph_inputs_ = adapter_ ? adapter_->inputs() : std::set<std::string>(names.begin(), names.end());
    const std::set<std::string> graph_outputs = adapter_ ? adapter_->outputs() : std::set<std::string>(answers.begin(), answers.end());
    std::vector<std::string> problems;
    const auto expect = [&problems](const std::set<std::string>& graph, const std::string& name) {
      if (graph.count(name) == 0) problems.push_back("'" + name + "' is in the signature, not in the graph");
    };
    for (const Port& port : signature.inputs) expect(graph_inputs_, port.name);
    for (const Port& port : signature.outputs) expect(graph_outputs, port.name);
    for (const State& state : signature.states) expect(graph_inputs_, state.name), expect(graph_outputs, state.output);
    if (!signature.lengths.empty()) expect(graph_inputs_, signature.lengths);
    raise_all<ModelFileError>(problems, "signature and graph of the file disagree");
  }

  const std::shared_ptr<const Api> api;
  const Handle session;
  const std::map<std::string, std::string> metadata;
  const Signature signature;

  Arrays starts(std::int64_t batch) const {
    Arrays made;
    for (const State& state : signature.states) made[state.name] = state.start(batch);
    return made;
  }

  /// The arrays of all inputs but options, each checked; every missing, unknown and wrong one is a problem.
  Arrays read(const Arrays& inputs, bool item, Sizes& sizes, std::vector<std::string>& problems) const {
    for (const auto& [name, array] : inputs) {
      const auto same = [&key = name](const Port& port) { return port.name == key; };
      if (std::none_of(signature.inputs.begin(), signature.inputs.end(), same)) problems.push_back("there is no input '" + name + "'");
    }
    Arrays found;
    for (const Port& port : signature.inputs) {
      if (port.option) continue;
      const auto given = inputs.find(port.name);
      if (given == inputs.end()) {
        problems.push_back("input '" + port.name + "' is missing");
        continue;
      }
      found[port.name] = port.folded(given->second, item, problems);
      for (const auto& [axis, size] : port.read(found[port.name], item, problems)) {
        const bool tied = axis == "batch" || axis == "time" || signature.axes.count(axis) != 0;
        if (tied && find(sizes, axis, size) != size) {
          problems.push_back("input '" + port.name + "' has size " + std::to_string(size) + " along axis '" + axis +
                             "', the inputs before it have " + std::to_string(sizes.at(axis)));
        }
        sizes[axis] = size;
      }
    }
    return found;
  }

  /// Options that the caller names; one number stands for all rows.
  void read_options(const Arrays& inputs, std::int64_t batch, Arrays& arrays, std::vector<std::string>& problems) const {
    for (const Port& port : signature.inputs) {
      const auto given = inputs.find(port.name);
      if (!port.option || given == inputs.end()) continue;
      Array array = given->second;
      if (array.dims().empty()) array = concat(std::vector<Array>(static_cast<std::size_t>(batch), array.reshaped({1})), 0);
      const Sizes own = port.read(array, false, problems);
      if (find(own, "batch", batch) != batch) {
        problems.push_back("input '" + port.name + "' has " + std::to_string(own.at("batch")) + " rows, the others have " + std::to_string(batch));
      }
      arrays[port.name] = array;
    }
  }

  /// One call of the graph: every input whole; answers and final states by name.
  Arrays call(const Arrays& arrays, const Arrays& states, const std::vector<std::int64_t>& lengths, Sizes sizes) const {
    const std::int64_t batch = sizes["batch"], steps = find(sizes, "time", 1);
    sizes["time"] = steps;
    Arrays feeds = states;
    for (const Port& port : signature.inputs) {
      const auto given = arrays.find(port.name);
      feeds[port.name] = given != arrays.end() ? given->second : filled(port.type, port.dims({{"batch", batch}}), port.option->usual);
    }
    if (!signature.lengths.empty()) {
      feeds[signature.lengths] = Array::of<std::int64_t>({batch}, lengths.empty() ? std::vector<std::int64_t>(static_cast<std::size_t>(batch), steps) : lengths);
    }
    if (graph_inputs_.count(signature.pick_at) != 0) feeds[signature.pick_at] = Array("int64", {batch, steps, 1});
    std::vector<std::string> wanted;
    for (const Port& port : signature.outputs) wanted.push_back(port.name);
    for (const State& state : signature.states) wanted.push_back(state.output);
    Arrays results = adapter_ ? adapter_->call(feeds) : run_graph(*api, session.get(), feeds, wanted);
    for (const Port& port : signature.outputs) {
      if (!port.is_flat) continue;
      std::vector<std::int64_t> apart;
      for (const Size& size : port.inner) apart.push_back(size.value(sizes));
      results[port.name] = results[port.name].reshaped(apart);
    }
    return results;
  }

  Arrays outputs_of(Arrays values) const {
    Arrays found;
    for (const Port& port : signature.outputs) found[port.name] = std::move(values[port.name]);
    return found;
  }

  /// Outputs for no step at all.  onnxruntime's loops lose an axis there, so as few blank steps as it takes are run and cut away.
  Arrays without_steps(const Arrays& arrays, const Arrays& states, Sizes sizes) const {
    if (!signature.timeless.empty() && signature.lengths.empty()) {
      throw InputError("a sequence without steps has no answer: output '" + signature.timeless + "' needs at least one");
    }
    Arrays blank = arrays;
    for (const Port& port : signature.inputs) {
      if (!port.timed() || blank.count(port.name) == 0) continue;
      std::vector<std::int64_t> dims = blank[port.name].dims();
      dims[port.time()] = port.steps(signature.most_waiting() + 1);
      blank[port.name] = filled(port.type, dims, port.blank());
    }
    sizes["time"] = signature.most_waiting() + 1;
    Arrays outputs = outputs_of(call(blank, states, std::vector<std::int64_t>(static_cast<std::size_t>(sizes["batch"]), 0), sizes));
    for (const Port& port : signature.outputs) {
      if (port.timed()) outputs[port.name] = slice(outputs[port.name], port.time(), 0, 0);
    }
    return outputs;
  }

  /// Whole sequences from the initial state; `lengths` may be empty.
  Arrays whole(const Arrays& arrays, Sizes sizes, const std::vector<std::int64_t>& lengths) const {
    const std::int64_t batch = sizes["batch"], steps = find(sizes, "time", 1);
    if (signature.timed && steps == 0) return without_steps(arrays, starts(batch), sizes);
    bool harmless = signature.causal && signature.timeless.empty();
    for (const std::int64_t length : lengths) harmless = harmless && (length - signature.overlap) % signature.stride == 0;
    if (!lengths.empty() && signature.lengths.empty() && !harmless) return row_by_row(arrays, sizes, lengths);
    Arrays outputs = outputs_of(call(arrays, starts(batch), lengths, sizes));
    for (const Port& port : signature.outputs) {
      if (lengths.empty() || !port.timed()) continue;
      std::vector<std::int64_t> own;
      for (const std::int64_t length : lengths) own.push_back(port.steps(length));
      zero_beyond(outputs[port.name], port.batch_axis, port.time(), own);
    }
    return outputs;
  }

 private:
  /// For a file that cannot tell padding from data.
  Arrays row_by_row(const Arrays& arrays, const Sizes& sizes, const std::vector<std::int64_t>& lengths) const {
    std::map<std::string, std::vector<Array>> rows;
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      Arrays own;
      const auto at = static_cast<std::int64_t>(i);
      for (const Port& port : signature.inputs) {
        const auto given = arrays.find(port.name);
        if (given == arrays.end()) continue;
        const Array one = slice(given->second, port.batch_axis, at, at + 1);
        own[port.name] = port.timed() ? slice(one, port.time(), 0, port.steps(lengths[i])) : one;
      }
      Sizes row = sizes;
      row["batch"] = 1, row["time"] = lengths[i];
      const Arrays answer = whole(own, row, {});
      for (const Port& port : signature.outputs) {
        Array padded = answer.at(port.name);
        if (port.timed()) {
          std::vector<std::int64_t> missing = padded.dims();
          missing[port.time()] = port.steps(sizes.at("time")) - missing[port.time()];
          padded = concat({padded, Array(padded.dtype(), missing)}, port.time());
        }
        rows[port.name].push_back(std::move(padded));
      }
    }
    Arrays outputs;
    for (const Port& port : signature.outputs) outputs[port.name] = concat(rows[port.name], port.batch_axis);
    return outputs;
  }

  const std::shared_ptr<const Adapter> adapter_;
  std::set<std::string> graph_inputs_;
};

}  // namespace detail

// ------------------------------------------------------------------------------------------------------------- stream

class Model;

/// One sequence that is read chunk by chunk.  A copy of it is a fork.  Not to be pushed from two threads at once.
class Stream {
 public:
  /// Read on: for each input, by name, an array [time, ...] of any number of steps.  Answers by name, [time, ...].
  /// After an error the stream is where it was.
  Arrays push(const Arrays& inputs) {
    using namespace detail;
    const Signature& signature = engine_->signature;
    std::vector<std::string> problems;
    Sizes sizes;
    Arrays now = engine_->read(inputs, true, sizes, problems), rest;
    const std::int64_t given = find(sizes, "time", 0);
    Sizes others = sizes;
    others.erase("time");
    signature.check_sizes(others, problems);
    if (given > signature.most_steps - steps_) {
      problems.push_back("the stream has read " + std::to_string(steps_) + " steps, " + std::to_string(given) + " more are beyond the " +
                         std::to_string(signature.most_steps) + " that this model takes in all (its positions end there): reset() begins a new sequence");
    }
    raise_all<InputError>(problems);
    std::int64_t run = given;
    for (const Port& port : signature.inputs) {
      const auto found = now.find(port.name);
      if (found == now.end()) continue;
      if (port.timed()) {
        const auto waiting = rest_.find(port.name);
        const Array all = waiting == rest_.end() ? found->second : concat({waiting->second, found->second}, port.item_time());
        const std::int64_t steps = all.dims()[port.item_time()];
        run = signature.run_of(steps);
        const std::int64_t from = std::max<std::int64_t>(0, run - signature.overlap);
        found->second = slice(all, port.item_time(), 0, run);
        if (from != steps) rest[port.name] = slice(all, port.item_time(), from, steps);
      }
      found->second = with_axis(found->second, port.batch_axis);
    }
    Arrays options;
    for (const auto& [name, array] : inputs) {
      const auto own = std::find_if(signature.inputs.begin(), signature.inputs.end(), [&key = name](const Port& port) { return port.name == key && port.option; });
      if (own != signature.inputs.end()) options[name] = with_axis(array, own->batch_axis);
    }
    engine_->read_options(options, 1, now, problems);
    raise_all<InputError>(problems);
    sizes["batch"] = 1, sizes["time"] = run;
    Arrays values, states = states_;
    if (run == 0 && signature.timed) {
      values = engine_->without_steps(now, states_, sizes);
    } else {
      if (!signature.timed) sizes.erase("time");
      values = engine_->call(now, states_, {}, sizes);
      for (const State& state : signature.states) states[state.name] = std::move(values[state.output]);
    }
    Arrays outputs;
    for (const Port& port : signature.outputs) outputs[port.name] = without_axis(values[port.name], port.batch_axis);
    states_ = std::move(states);
    rest_ = std::move(rest);
    steps_ += signature.timed ? given : 1;
    return outputs;
  }

  /// Another stream at the same place, which goes its own way.
  Stream fork() const { return *this; }

  /// Begin anew, at the initial state.
  void reset() {
    states_ = engine_->starts(1);
    rest_.clear();
    steps_ = 0;
  }

  /// Steps read so far.
  std::int64_t steps() const { return steps_; }

  /// The state as bytes, tied to this model; Model::restore goes on from them, here or in Python or JavaScript.
  std::vector<unsigned char> save() const {
    using namespace detail;
    std::string header = "{\"fingerprint\": \"" + engine_->metadata.at("fingerprint") + "\", \"steps\": " + std::to_string(steps_) + ", \"states\": [";
    Bytes values;
    const auto parts = this->parts();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto& [name, array] = parts[i];
      header += (i != 0 ? ", " : "") + std::string("[\"") + name + "\", \"" + array.dtype() + "\", " + std::to_string(array.size()) + "]";
      values.insert(values.end(), array.bytes().begin(), array.bytes().end());
    }
    header += "]}";
    Bytes blob{'R', 'N', 'N', 'S', 'T', 'A', 'T', 'E'};
    for (const std::size_t number : {std::size_t{1}, header.size()}) {
      for (int shift = 0; shift < 32; shift += 8) blob.push_back(static_cast<unsigned char>(number >> shift));
    }
    blob.insert(blob.end(), header.begin(), header.end());
    blob.insert(blob.end(), values.begin(), values.end());
    const auto digest = sha256(blob.data(), blob.size());
    blob.insert(blob.end(), digest.begin(), digest.end());
    return blob;
  }

 private:
  friend class Model;
  explicit Stream(std::shared_ptr<const detail::Engine> engine) : engine_(std::move(engine)) { reset(); }

  /// What is saved, in order.
  std::vector<std::pair<std::string, Array>> parts() const {
    using namespace detail;
    const Signature& signature = engine_->signature;
    std::vector<std::pair<std::string, Array>> found;
    for (const State& state : signature.states) found.emplace_back(state.name, states_.at(state.name));
    for (const Port& port : signature.inputs) {
      if (signature.most_waiting() == 0 || !port.timed()) continue;
      std::vector<std::int64_t> dims = waiting_dims(port, signature.most_waiting());
      Array kept(port.type, dims);
      std::int64_t count = 0;
      const auto waiting = rest_.find(port.name);
      if (waiting != rest_.end()) {
        count = waiting->second.dims()[port.item_time()];
        dims[port.item_time()] -= count;
        kept = concat({waiting->second, Array(port.type, dims)}, port.item_time());
      }
      found.emplace_back(port.name + ".rest", kept);
      found.emplace_back(port.name + ".rest.steps", Array::of<std::int64_t>({1}, {count}));
    }
    return found;
  }

  static std::vector<std::int64_t> waiting_dims(const detail::Port& port, std::int64_t steps) {
    std::vector<std::int64_t> dims = port.dims({{"time", steps}});
    dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(port.batch_axis));
    return dims;
  }

  /// Move to where `blob` was saved.
  void restore(const detail::Bytes& blob) {
    using namespace detail;
    if (blob.size() < 48 || std::memcmp(blob.data(), "RNNSTATE", 8) != 0) throw SnapshotError("these bytes are no saved state of rnncore");
    const auto word = [&blob](std::size_t at) {
      return std::size_t{blob[at]} | std::size_t{blob[at + 1]} << 8 | std::size_t{blob[at + 2]} << 16 | std::size_t{blob[at + 3]} << 24;
    };
    if (word(8) > 1) throw SnapshotError("the saved state is of a newer format: take a newer header");
    const std::size_t end = blob.size() - 32;
    const auto digest = sha256(blob.data(), end);
    if (!std::equal(digest.begin(), digest.end(), blob.begin() + static_cast<std::ptrdiff_t>(end))) {
      throw SnapshotError("the saved state is cut short or was altered: its checksum does not match");
    }
    std::size_t at = 16 + word(12);
    if (at > end) throw SnapshotError("the header of the saved state cannot be read: it was not made by rnncore");
    const auto parts = this->parts();
    Arrays found;
    std::int64_t steps = 0;
    try {
      const Json header = Json::parse(std::string(blob.begin() + 16, blob.begin() + static_cast<std::ptrdiff_t>(at)));
      if (header["fingerprint"].string() != engine_->metadata.at("fingerprint")) {
        throw SnapshotError("the saved state belongs to another model: load the model that saved it, or open a new stream");
      }
      steps = header["steps"].integer();
      const auto& listed = header["states"].list();
      bool same = listed.size() == parts.size();
      for (std::size_t i = 0; same && i < parts.size(); ++i) {
        const auto& [name, array] = parts[i];
        const auto& own = listed[i].list();
        same = own.size() == 3 && own[0].string() == name && own[1].string() == array.dtype() &&
               own[2].integer() == static_cast<std::int64_t>(array.size()) && array.bytes().size() <= end - at;
        if (!same) break;
        found[name] = from_bytes({blob.begin() + static_cast<std::ptrdiff_t>(at), blob.begin() + static_cast<std::ptrdiff_t>(at + array.bytes().size())}, array.dtype(), array.dims());
        at += array.bytes().size();
      }
      if (!same || at != end) throw SnapshotError("the saved state lists other states than this model has: it was not made by rnncore");
    } catch (const ModelFileError&) {
      throw SnapshotError("the header of the saved state cannot be read: it was not made by rnncore");
    }
    Arrays states, rest;
    for (const State& state : engine_->signature.states) states[state.name] = found.at(state.name);
    for (const Port& port : engine_->signature.inputs) {
      if (engine_->signature.most_waiting() == 0 || !port.timed()) continue;
      const std::int64_t count = found.at(port.name + ".rest.steps").data<std::int64_t>()[0];
      if (count < 0 || count > engine_->signature.most_waiting()) throw SnapshotError("the saved state has more waiting steps than a stream keeps: it was not made by rnncore");
      if (count != 0) rest[port.name] = slice(found.at(port.name + ".rest"), port.item_time(), 0, count);
    }
    states_ = std::move(states);
    rest_ = std::move(rest);
    steps_ = steps;
  }

  std::shared_ptr<const detail::Engine> engine_;
  Arrays states_, rest_;
  std::int64_t steps_ = 0;
};

/// A model file, loaded and checked.  Copies share one session; may be used from several threads.
class Model {
 public:
  std::vector<std::string> inputs() const { return names(engine_->signature.inputs); }
  std::vector<std::string> outputs() const { return names(engine_->signature.outputs); }
  bool causal() const { return engine_->signature.causal; }
  const std::string& fingerprint() const { return engine_->metadata.at("fingerprint"); }

  /// The texts of the file's metadata, by name without "rnncore.".
  const std::map<std::string, std::string>& metadata() const { return engine_->metadata; }

  /// Run whole sequences, each from the initial state: an array [batch, time, ...] for each input.  Options may be left out, and an
  /// array without axes stands for all rows.  `lengths`: valid steps of each row.  Answers by name, zero beyond them.
  Arrays run(const Arrays& inputs, const std::vector<std::int64_t>& lengths = {}) const {
    using namespace detail;
    const Signature& signature = engine_->signature;
    std::vector<std::string> problems;
    Sizes sizes;
    Arrays arrays = engine_->read(inputs, false, sizes, problems);
    raise_all<InputError>(problems);
    const std::int64_t batch = sizes["batch"], steps = find(sizes, "time", 1);
    if (batch == 0) throw InputError("the batch is empty: hand in at least one sequence");
    engine_->read_options(inputs, batch, arrays, problems);
    signature.check_sizes(sizes, problems);
    signature.check_followers(arrays, sizes, problems);
    if (!lengths.empty() && !signature.timed) problems.emplace_back("lengths were given, but no input of this model has a time axis");
    if (!lengths.empty() && static_cast<std::int64_t>(lengths.size()) != batch) {
      problems.push_back(std::to_string(lengths.size()) + " lengths for " + std::to_string(batch) + " rows");
    }
    for (std::size_t i = 0; i < lengths.size(); ++i) {
      if (lengths[i] < 0 || lengths[i] > steps) {
        problems.push_back("lengths[" + std::to_string(i) + "] is " + std::to_string(lengths[i]) + ", expected 0 to " + std::to_string(steps));
      } else {
        signature.check_sizes({{"time", lengths[i]}}, problems);
      }
    }
    raise_all<InputError>(problems);
    const bool full = std::all_of(lengths.begin(), lengths.end(), [steps](std::int64_t length) { return length == steps; });
    return engine_->whole(arrays, sizes, full ? std::vector<std::int64_t>() : lengths);
  }

  /// Open a stream at the initial state.
  Stream stream() const {
    if (!causal()) throw NotStreamableError("this model does not stream: " + engine_->signature.not_causal_because);
    return Stream(engine_);
  }

  /// Open a stream where Stream::save left one, here or in Python or JavaScript.
  Stream restore(const std::vector<unsigned char>& blob) const {
    Stream stream = this->stream();
    stream.restore(blob);
    return stream;
  }

  /// What the file says of its inputs, outputs and states.
  const detail::Signature& signature() const { return engine_->signature; }

 private:
  friend class Runtime;
  explicit Model(std::shared_ptr<const detail::Engine> engine) : engine_(std::move(engine)) {}

  static std::vector<std::string> names(const std::vector<detail::Port>& ports) {
    std::vector<std::string> found;
    for (const detail::Port& port : ports) found.push_back(port.name);
    return found;
  }

  std::shared_ptr<const detail::Engine> engine_;
};

/// onnxruntime, opened once.
class Runtime {
 public:
  /// From a shared library: onnxruntime.dll, libonnxruntime.so, libonnxruntime.dylib.
  explicit Runtime(const std::string& library) : Runtime(detail::base_of(library)) {}
  /// From what OrtGetApiBase() returns, in a program that is linked to onnxruntime.
  explicit Runtime(const void* api_base) : api_(std::make_shared<detail::Api>(api_base)) {}

  const std::string& version() const { return api_->version(); }

  /// Load a file that rnncore exported; weights in a second file are read from its folder.  `threads`: of one call.
  Model load(const std::string& path, int threads = 1) const {
    return load(detail::read_file(path), path, threads);
  }
  /// The same from memory.
  Model load(const std::vector<unsigned char>& bytes, int threads = 1) const { return load(bytes, "", threads); }
  /// Load a file of somebody else, whose weights are in it, as `reading` says.
  Model load(const std::string& path, const Reading& reading, int threads = 1) const { return load(detail::read_file(path), reading, threads); }
  /// The same from memory.
  Model load(const std::vector<unsigned char>& bytes, const Reading& reading, int threads = 1) const {
    using namespace detail;
    if (!find_metadata(bytes).found.empty()) throw InputError("this file was written by rnncore and knows its states: load it without a Reading");
    const Handle session = session_of(bytes, "", threads);
    const auto run = [api = api_, session](const Arrays& feeds, const std::vector<std::string>& wanted) { return run_graph(*api, session.get(), feeds, wanted); };
    auto adapter = std::make_shared<const Adapter>(bytes, reading, run);
    const std::string said = hex(sha256(bytes.data(), bytes.size())) + adapter->described();  // another reading is another model
    const std::string fingerprint = hex(sha256(reinterpret_cast<const unsigned char*>(said.data()), said.size()));
    return Model(std::make_shared<Engine>(api_, session, std::map<std::string, std::string>{{"signature", adapter->signature()}, {"fingerprint", fingerprint}}, adapter));
  }

 private:
  Model load(const detail::Bytes& bytes, const std::string& path, int threads) const {
    using namespace detail;
    auto metadata = read_metadata(bytes);
    if (metadata.count("signature") == 0) throw ModelFileError("the file has no rnncore.signature: export it again");
    const bool outside = metadata.count("weights") != 0;
    if (outside) check_weights(Json::parse(metadata["weights"]), path);
    const Handle session = session_of(bytes, outside ? path : "", threads);
    return Model(std::make_shared<Engine>(api_, session, std::move(metadata)));
  }

  /// A session over the bytes of a model, or over its file where `path` is not empty.
  detail::Handle session_of(const detail::Bytes& bytes, const std::string& path, int threads) const {
    using namespace detail;
    if (threads < 1) throw InputError("threads is " + std::to_string(threads) + ", expected at least 1");
    void* made = nullptr;
    api_->call(Slot::CreateSessionOptions, &made);
    const Handle options = api_->held(made, Slot::ReleaseSessionOptions);
    api_->call(Slot::SetSessionLogSeverityLevel, options.get(), int{4});
    api_->call(Slot::SetIntraOpNumThreads, options.get(), threads);
    try {
      if (!path.empty()) api_->call(Slot::CreateSession, api_->env(), wide(path).c_str(), options.get(), &made);
      else api_->call(Slot::CreateSessionFromArray, api_->env(), static_cast<const void*>(bytes.data()), bytes.size(), options.get(), &made);
    } catch (const InputError& error) {
      throw ModelFileError(std::string("onnxruntime does not accept the model: ") + error.what());
    }
    return api_->held(made, Slot::ReleaseSession);
  }

#ifdef _WIN32
  static std::wstring wide(const std::string& path) {
    std::wstring text(path.size() + 1, L'\0');
    text.resize(static_cast<std::size_t>(MultiByteToWideChar(CP_ACP, 0, path.c_str(), static_cast<int>(path.size()), text.data(), static_cast<int>(text.size()))));
    return text;
  }
#else
  static std::string wide(const std::string& path) { return path; }
#endif

  static void check_weights(const detail::Json& told, const std::string& path) {
    if (path.empty()) throw ModelFileError("the weights of this model are in a second file: load it from its path, not from memory");
    const std::string& name = told["file"].string();
    if (name.empty() || name.find_first_of("/\\") != std::string::npos) throw ModelFileError("the file of the weights must lie in the same folder: '" + name + "'");
    const std::size_t folder = path.find_last_of("/\\");
    const detail::Bytes weights = detail::read_file((folder == std::string::npos ? "" : path.substr(0, folder + 1)) + name);
    if (detail::hex(detail::sha256(weights.data(), weights.size())) != told["sha256"].string()) {
      throw TamperedModelError(name + ": the weights were changed after export: copy both files again");
    }
  }

  std::shared_ptr<const detail::Api> api_;
};

// ----------------------------------------------------------------------------------------------------- random numbers

/// NumPy's default random numbers (PCG64, XSL-RR 128/64, seeded by SeedSequence), so that one seed gives one text in every language.
class Pcg64 {
 public:
  /// The digits of a whole number of any size.
  explicit Pcg64(const std::string& seed) {
    const auto words = seed_words(seed);
    increment_ = {(words[2] << 1) | (words[3] >> 63), (words[3] << 1) | 1};
    step();
    state_ = sum(state_, {words[0], words[1]});
    step();
  }
  explicit Pcg64(std::uint64_t seed) : Pcg64(std::to_string(seed)) {}

  /// 64 random bits.
  std::uint64_t word() {
    step();
    const std::uint64_t value = state_.high ^ state_.low;
    const int turn = static_cast<int>(state_.high >> 58);
    return (value >> turn) | (value << ((64 - turn) & 63));
  }
  /// A number in [0, 1).
  double random() { return static_cast<double>(word() >> 11) / 9007199254740992.0; }

 private:
  struct Wide { std::uint64_t high = 0, low = 0; };

  static Wide sum(Wide a, Wide b) {
    const std::uint64_t low = a.low + b.low;
    return {a.high + b.high + (low < a.low ? 1 : 0), low};
  }
  static Wide times(Wide a, Wide b) {
    const std::uint64_t mask = 0xFFFFFFFFu;
    const std::uint64_t al = a.low & mask, ah = a.low >> 32, bl = b.low & mask, bh = b.low >> 32;
    const std::uint64_t middle = ah * bl + (al * bl >> 32), other = al * bh + (middle & mask);
    const std::uint64_t high = ah * bh + (middle >> 32) + (other >> 32);
    return {high + a.high * b.low + a.low * b.high, a.low * b.low};
  }
  void step() { state_ = sum(times(state_, {0x2360ed051fc65da4u, 0x4385df649fccf645u}), increment_); }

  static std::array<std::uint64_t, 4> seed_words(std::string digits) {
    std::vector<std::uint32_t> entropy;
    do {  // the number in base 2^32, lowest first
      std::uint64_t rest = 0;
      std::string quotient;
      for (const char digit : digits) {
        if (digit < '0' || digit > '9') throw InputError("seed is '" + digits + "', expected a whole number of at least 0");
        rest = rest * 10 + static_cast<std::uint64_t>(digit - '0');
        const std::uint64_t part = rest >> 32;
        rest &= 0xFFFFFFFFu;
        if (part != 0 || !quotient.empty()) quotient += static_cast<char>('0' + part);
      }
      entropy.push_back(static_cast<std::uint32_t>(rest));
      digits = quotient;
    } while (!digits.empty());
    std::uint32_t constant = 0x43b0d7e5u;
    const auto hash = [&constant](std::uint32_t value) {
      value ^= constant;
      constant *= 0x931e8875u;
      value *= constant;
      return value ^ (value >> 16);
    };
    const auto mix = [](std::uint32_t x, std::uint32_t y) {
      const std::uint32_t value = 0xca01f9ddu * x - 0x4973f715u * y;
      return value ^ (value >> 16);
    };
    std::array<std::uint32_t, 4> pool{};
    for (std::size_t i = 0; i < 4; ++i) pool[i] = hash(i < entropy.size() ? entropy[i] : 0);
    for (std::size_t i = 0; i < 4; ++i) {
      for (std::size_t k = 0; k < 4; ++k) if (i != k) pool[k] = mix(pool[k], hash(pool[i]));
    }
    for (std::size_t i = 4; i < entropy.size(); ++i) {
      for (std::size_t k = 0; k < 4; ++k) pool[k] = mix(pool[k], hash(entropy[i]));
    }
    std::uint32_t own = 0x8b51f9ddu;
    std::array<std::uint64_t, 4> words{};
    for (std::size_t i = 0; i < 8; ++i) {
      std::uint32_t value = pool[i % 4] ^ own;
      own *= 0x58f38dedu;
      value *= own;
      value ^= value >> 16;
      words[i / 2] |= std::uint64_t{value} << (i % 2 == 0 ? 0 : 32);
    }
    return words;
  }

  Wide state_, increment_;
};

// ------------------------------------------------------------------------------------------------------------- verify

struct VerifyCase {
  std::string kind;  // whole, ragged, stream
  double max_abs = std::numeric_limits<double>::infinity(), error = std::numeric_limits<double>::infinity();
  bool passed = false;
  std::string note;
};
struct VerifyReport {
  bool passed = false;
  double tolerance = 0;
  std::string measure;
  std::vector<VerifyCase> cases;
};

namespace detail {

/// An array of a golden case: stored, or drawn again from its seed.
inline Array unpacked(const Json& data) {
  std::vector<std::int64_t> dims;
  for (const Json& one : data["shape"].list()) dims.push_back(one.integer());
  Array array(data["dtype"].string(), dims);
  if (!data.has("seed")) {
    array.bytes() = Inflate::of(from_base64(data["data"].string()), array.bytes().size());
    if (array.size() != static_cast<std::size_t>(product(dims))) throw ModelFileError("a golden case is cut short: export the model again");
    return array;
  }
  Pcg64 random(data["seed"].expect(Json::Kind::number).text);
  const double low = data["low"].number(), high = data["high"].number();
  const auto span = static_cast<std::uint64_t>(static_cast<std::int64_t>(high) - static_cast<std::int64_t>(low) + 1);
  for (std::size_t i = 0; i < array.size(); ++i) {
    const std::uint64_t word = random.word();
    const double inside = low + (high - low) * (static_cast<double>(word >> 11) / 9007199254740992.0);
    const std::int64_t whole = static_cast<std::int64_t>(low) + static_cast<std::int64_t>((word >> 11) % span);
    if (array.dtype() == "bool") array.bytes()[i] = static_cast<unsigned char>(word >> 63);
    else if (array.dtype() == "float32") array.data<float>()[i] = static_cast<float>(inside);
    else if (array.dtype() == "float64") array.data<double>()[i] = inside;
    else if (array.dtype() == "float16") reinterpret_cast<std::uint16_t*>(array.bytes().data())[i] = to_half(inside);
    else if (array.dtype() == "int64") array.data<std::int64_t>()[i] = whole;
    else if (array.dtype() == "int32") array.data<std::int32_t>()[i] = static_cast<std::int32_t>(whole);
    else throw ModelFileError("a golden case draws numbers of type " + array.dtype() + ", which this header cannot");
  }
  return array;
}

/// Largest absolute error, and the error by the file's measure.
inline std::pair<double, double> distance(const Array& got, const Json& kept, const std::string& measure) {
  const double infinite = std::numeric_limits<double>::infinity();
  const Array expected = unpacked(kept);
  std::vector<std::int64_t> dims;
  for (const Json& one : kept["of"].list()) dims.push_back(one.integer());
  const auto every = static_cast<std::size_t>(kept["every"].integer());
  if (got.dims() != dims || (expected.size() != 0 && (expected.size() - 1) * every >= got.size())) return {infinite, infinite};
  double worst = 0, largest = 0, wrong = 0, size = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    const double mine = got.number(i * every), theirs = expected.number(i);
    if (!std::isfinite(theirs)) {
      if (std::isnan(theirs) ? !std::isnan(mine) : mine != theirs) return {infinite, infinite};
      continue;
    }
    if (!std::isfinite(mine)) return {infinite, infinite};
    const double off = std::abs(mine - theirs);
    worst = std::max(worst, off);
    largest = std::max(largest, std::abs(theirs));
    wrong += expected.is_float() ? off * off : static_cast<double>(off != 0);
    size += expected.is_float() ? theirs * theirs : 1;
  }
  if (measure == "max") return {worst, worst / std::max(1.0, largest)};
  return {worst, std::sqrt(size != 0 ? wrong / size : wrong / std::max<double>(1, static_cast<double>(expected.size())))};
}

inline Arrays answer(const Model& model, const Json& data, const Arrays& inputs) {
  std::vector<std::int64_t> lengths;
  for (const Json& one : data["lengths"].items) lengths.push_back(one.integer());
  if (data["kind"].string() != "stream") return model.run(inputs, lengths);
  Stream stream = model.stream();
  std::map<std::string, std::vector<Array>> parts;
  std::int64_t start = 0;
  for (const Json& chunk : data["chunks"].list()) {
    Arrays item;
    for (const Port& port : model.signature().inputs) {
      const Array& array = inputs.at(port.name);
      item[port.name] = without_axis(port.timed() ? slice(array, port.time(), start, start + chunk.integer()) : array, port.batch_axis);
    }
    start += chunk.integer();
    const Arrays answers = stream.push(item);
    for (const Port& port : model.signature().outputs) parts[port.name].push_back(with_axis(answers.at(port.name), port.batch_axis));
  }
  Arrays outputs;
  for (const Port& port : model.signature().outputs) {
    const auto& all = parts.at(port.name);
    outputs[port.name] = port.timed() ? concat(all, port.time()) : all.back();
  }
  return outputs;
}

}  // namespace detail

/// Put the golden questions of a file to it once more, and compare with what PyTorch answered.
inline VerifyReport verify(const Model& model) {
  using namespace detail;
  const auto found = model.metadata().find("golden");
  const Json golden = found == model.metadata().end() ? Json() : Json::parse(found->second);
  if (golden["cases"].items.empty()) throw ModelFileError("the file holds no golden cases: export it with verify=True");
  VerifyReport report{true, golden["tolerance"].number(), golden["measure"].string(), {}};
  for (const Json& data : golden["cases"].list()) {
    VerifyCase result;
    result.kind = data["kind"].string();
    try {
      Arrays inputs;
      for (const auto& [name, packed] : data["inputs"].members) inputs[name] = unpacked(packed);
      const Arrays outputs = answer(model, data, inputs);
      double worst = 0, error = 0;
      for (const auto& [name, kept] : data["outputs"].members) {
        const auto [max_abs, own] = distance(outputs.at(name), kept, report.measure);
        worst = std::max(worst, max_abs), error = std::max(error, own);
      }
      result.max_abs = worst, result.error = error;
    } catch (const RnncoreError& problem) {
      result.note = problem.what();
    }
    result.passed = result.error <= report.tolerance;
    report.passed = report.passed && result.passed;
    report.cases.push_back(std::move(result));
  }
  return report;
}

// ---------------------------------------------------------------------------------------------------- texts in one call

/// Texts and token ids of a model that reads characters.  Other tokenizers are refused: hand in ids that a library made.
class Characters {
 public:
  explicit Characters(const detail::Json& tokenizer) {
    for (const auto& [token, id] : tokenizer["model"]["vocab"].members) {
      ids_[token] = id.integer();
      tokens_[id.integer()] = token;
    }
    const auto letter = [](const std::string& token) { return token == "<eos>" || pieces(token).size() == 1; };
    if (tokenizer.has("normalizer")) {
      throw ModelFileError("the tokenizer of the file changes texts first (normalizer " + tokenizer["normalizer"]["type"].text + "), which this host does not do: hand in token ids");
    }
    const bool plain = tokenizer["model"]["type"].text == "WordLevel" && tokenizer["decoder"]["type"].text == "Fuse" &&
                       tokenizer["pre_tokenizer"]["type"].text == "Split" && tokenizer["pre_tokenizer"]["pattern"]["Regex"].text == "[\\s\\S]";
    if (!plain || ids_.count("<eos>") == 0 || !std::all_of(ids_.begin(), ids_.end(), [&letter](const auto& one) { return letter(one.first); })) {
      throw ModelFileError("the tokenizer of the file does not read characters: hand in token ids");
    }
  }
  std::vector<std::int64_t> encode(const std::string& text) const {
    std::vector<std::int64_t> found;
    for (const std::string& letter : pieces(text)) {
      const auto id = ids_.find(letter);
      if (id == ids_.end()) throw UnknownTokenError("unknown character '" + letter + "': the model knows " + std::to_string(ids_.size() - 1));
      found.push_back(id->second);
    }
    return found;
  }
  std::string decode(const std::vector<std::int64_t>& ids) const {
    std::string text;
    for (const std::int64_t id : ids) {
      const auto token = tokens_.find(id);
      if (token == tokens_.end()) throw InputError("there is no token " + std::to_string(id));
      if (token->second != "<eos>") text += token->second;
    }
    return text;
  }

 private:
  /// The characters of UTF-8.
  static std::vector<std::string> pieces(const std::string& text) {
    std::vector<std::string> found;
    for (const char byte : text) {
      if ((byte & 0xC0) != 0x80 || found.empty()) found.emplace_back();
      found.back() += byte;
    }
    return found;
  }

  std::map<std::string, std::int64_t> ids_;
  std::map<std::int64_t, std::string> tokens_;
};

using Ids = std::vector<std::int64_t>;

namespace detail {

/// Rows of ids as one array, padded with 0, at least one column; and their lengths.
inline std::pair<Array, Ids> padded(const std::vector<Ids>& rows) {
  std::size_t width = 1;
  Ids lengths;
  for (const Ids& one : rows) {
    width = std::max(width, one.size());
    lengths.push_back(static_cast<std::int64_t>(one.size()));
  }
  Array array("int64", {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(width)});
  for (std::size_t i = 0; i < rows.size(); ++i) std::copy(rows[i].begin(), rows[i].end(), array.data<std::int64_t>() + i * width);
  return {array, lengths};
}

template <class T>
Array one(T value) {
  return Array::of<T>({}, {value});
}

}  // namespace detail

struct Sampling {
  std::int64_t max_tokens = 400;
  double temperature = 1;
  std::optional<std::int64_t> top_k;
  std::optional<double> top_p;
  std::optional<std::uint64_t> seed;
};

/// A file of rnncore.export.export_generator: whole texts in one call.
class TextGenerator {
 public:
  explicit TextGenerator(Model model) : model_(std::move(model)) {
    if (model_.metadata().count("generation") == 0) throw ModelFileError("the file does not generate: write it with export_generator");
  }

  /// Token ids written after each of several prefixes; the same seed gives the ids that Python gives.
  std::vector<Ids> generate(const std::vector<Ids>& prefixes, const Sampling& how = {}) const {
    using namespace detail;
    if (how.max_tokens < 0) throw InputError("max_tokens is " + std::to_string(how.max_tokens) + ", expected 0 or more");
    const auto rows = static_cast<std::int64_t>(prefixes.size());
    Pcg64 random(how.seed ? *how.seed : std::random_device{}());
    Array uniforms("float64", {rows, how.max_tokens});
    for (std::size_t i = 0; i < uniforms.size(); ++i) uniforms.data<double>()[i] = random.random();
    const auto [prefix, lengths] = padded(prefixes);
    Arrays inputs{{"prefix", prefix}, {"uniforms", uniforms}, {"max_tokens", one(how.max_tokens)}, {"temperature", one(how.temperature)}};
    if (how.top_k) inputs["top_k"] = one(*how.top_k);
    if (how.top_p) inputs["top_p"] = one(*how.top_p);
    const Arrays answer = model_.run(inputs, lengths);
    std::vector<Ids> found;
    const std::int64_t steps = answer.at("ids").dims()[1];
    for (std::int64_t i = 0; i < rows; ++i) {
      const std::int64_t* begin = answer.at("ids").data<std::int64_t>() + i * steps;
      found.emplace_back(begin, begin + answer.at("ids_lengths").data<std::int64_t>()[i]);
    }
    return found;
  }

  /// The same in texts, for models that read characters.
  std::vector<std::string> generate(const std::vector<std::string>& prefixes, const Sampling& how = {}) const {
    const auto tokenizer = model_.metadata().find("tokenizer");
    if (tokenizer == model_.metadata().end()) throw InputError("the file has no tokenizer: hand in token ids");
    const Characters characters(detail::Json::parse(tokenizer->second));
    std::vector<Ids> ids;
    for (const std::string& text : prefixes) ids.push_back(characters.encode(text));
    std::vector<std::string> written;
    for (const Ids& one : generate(ids, how)) written.push_back(characters.decode(one));
    return written;
  }

 private:
  Model model_;
};

struct Translation {
  Ids ids;
  double log_prob = 0, score = 0;
};

/// A file of rnncore.export.export_translator: targets of several sources in one call, greedily or by beams.
class Translator {
 public:
  explicit Translator(Model model) : model_(std::move(model)) {
    if (model_.metadata().count("translation") == 0) throw ModelFileError("the file does not translate: write it with export_translator");
  }

  /// For each source the targets found, best first.  `max_tokens`: without one, twice the source and ten.
  std::vector<std::vector<Translation>> translate(const std::vector<Ids>& sources, std::int64_t beam = 1,
                                                  std::optional<std::int64_t> max_tokens = {}, double length_penalty = 0) const {
    using namespace detail;
    const auto [source, lengths] = padded(sources);
    Ids most;
    for (const std::int64_t length : lengths) most.push_back(max_tokens ? *max_tokens : 2 * length + 10);
    const auto rows = static_cast<std::int64_t>(sources.size());
    const Arrays answer = model_.run({{"source", source}, {"max_tokens", Array::of<std::int64_t>({rows}, most)}, {"beam", one(beam)}, {"length_penalty", one(length_penalty)}}, lengths);
    const Array& ids = answer.at("beam.ids");
    const std::int64_t width = ids.dims()[1], steps = ids.dims()[2];
    std::vector<std::vector<Translation>> found(sources.size());
    for (std::int64_t at = 0; at < rows * width; ++at) {
      Translation one;
      one.log_prob = answer.at("beam.log_prob").data<double>()[at];
      if (at % width != 0 && std::isinf(one.log_prob)) continue;
      one.score = answer.at("beam.score").data<double>()[at];
      const std::int64_t* begin = ids.data<std::int64_t>() + at * steps;
      one.ids.assign(begin, begin + answer.at("beam.ids_lengths").data<std::int64_t>()[at]);
      found[static_cast<std::size_t>(at / width)].push_back(std::move(one));
    }
    return found;
  }

 private:
  Model model_;
};

}  // namespace rnncore
