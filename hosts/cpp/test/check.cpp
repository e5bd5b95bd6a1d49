// check LIBRARY FOLDER: the golden cases of every file of a folder, and the texts, ids and states that Python gave; one line a
// check, "ok NAME" or "failed NAME: why".  The folder is written by tests/hosts/files.py.
#include "rnncore.hpp"

#include <iomanip>
#include <iostream>

#if __has_include(<onnxruntime_c_api.h>)
#include <onnxruntime_c_api.h>
#define SAME(name) \
  static_assert(offsetof(OrtApi, name) == static_cast<std::size_t>(rnncore::detail::Slot::name) * sizeof(void*), #name)
SAME(GetErrorMessage);
SAME(CreateEnv);
SAME(CreateSession);
SAME(CreateSessionFromArray);
SAME(Run);
SAME(CreateSessionOptions);
SAME(SetSessionLogSeverityLevel);
SAME(SetIntraOpNumThreads);
SAME(SessionGetInputCount);
SAME(SessionGetOutputCount);
SAME(SessionGetInputName);
SAME(SessionGetOutputName);
SAME(CreateTensorWithDataAsOrtValue);
SAME(GetTensorMutableData);
SAME(GetTensorElementType);
SAME(GetDimensionsCount);
SAME(GetDimensions);
SAME(GetTensorTypeAndShape);
SAME(CreateCpuMemoryInfo);
SAME(AllocatorFree);
SAME(GetAllocatorWithDefaultOptions);
SAME(ReleaseEnv);
SAME(ReleaseStatus);
SAME(ReleaseMemoryInfo);
SAME(ReleaseSession);
SAME(ReleaseValue);
SAME(ReleaseTensorTypeAndShapeInfo);
SAME(ReleaseSessionOptions);
#endif

using rnncore::Array;
using rnncore::Arrays;
using rnncore::Ids;
using Json = rnncore::detail::Json;

namespace {

int failures = 0;

/// `run` answers with what is wrong, or with nothing.
void test(const std::string& name, const std::function<std::string()>& run) {
  std::string wrong;
  try {
    wrong = run();
  } catch (const std::exception& error) {
    wrong = std::string("it threw ") + error.what();
  }
  std::replace(wrong.begin(), wrong.end(), '\n', ' ');
  std::cout << (wrong.empty() ? "ok " + name : "failed " + name + ": " + wrong) << std::endl;
  failures += wrong.empty() ? 0 : 1;
}

template <class Error, class Run>
std::string refused(const Run& run) {
  try {
    run();
  } catch (const Error&) {
    return "";
  } catch (const std::exception& error) {
    return std::string("another error: ") + error.what();
  }
  return "nothing was refused";
}

Ids ids_of(const Json& list) {
  Ids found;
  for (const Json& one : list.list()) found.push_back(one.integer());
  return found;
}

Array row(const Ids& ids) { return Array::of<std::int64_t>({static_cast<std::int64_t>(ids.size())}, ids); }

bool close(const Array& got, const std::vector<double>& expected) {
  if (got.size() != expected.size()) return false;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    if (!(std::abs(got.number(i) - expected[i]) <= 1e-4)) return false;
  }
  return true;
}

std::vector<double> numbers(const Json& nested) {
  if (nested.kind == Json::Kind::number) return {nested.number()};
  std::vector<double> all;
  for (const Json& one : nested.list()) {
    for (const double number : numbers(one)) all.push_back(number);
  }
  return all;
}

std::vector<double> numbers(const Array& array) {
  std::vector<double> all;
  for (std::size_t i = 0; i < array.size(); ++i) all.push_back(array.number(i));
  return all;
}

/// Options are named as in JavaScript.
rnncore::Sampling sampling(const Json& options) {
  rnncore::Sampling how;
  if (options.has("maxTokens")) how.max_tokens = options["maxTokens"].integer();
  if (options.has("temperature")) how.temperature = options["temperature"].number();
  if (options.has("topK")) how.top_k = options["topK"].integer();
  if (options.has("topP")) how.top_p = options["topP"].number();
  if (options.has("seed")) how.seed = static_cast<std::uint64_t>(options["seed"].integer());
  return how;
}

std::string check_golden(const rnncore::Model& model, const Json& kinds) {
  const auto report = rnncore::verify(model);
  std::string wrong;
  for (std::size_t i = 0; i < report.cases.size(); ++i) {
    const auto& one = report.cases[i];
    if (i >= kinds.list().size() || kinds.list()[i].string() != one.kind) wrong += "case of kind " + one.kind + "; ";
    if (!one.passed) wrong += one.kind + ": error " + std::to_string(one.error) + " " + one.note + "; ";
  }
  return report.cases.size() == kinds.list().size() ? wrong : "another number of cases";
}

/// Sizes that follow another input's, and ids that begin at 1.
std::string check_followers(const rnncore::Model& model) {
  const auto inputs = [](std::int64_t id, std::int64_t words, std::int64_t frames) {
    const std::size_t count = static_cast<std::size_t>(words), values = static_cast<std::size_t>(frames) * 3;
    return std::map<std::string, Array>{{"words", Array::of<std::int64_t>({1, words}, Ids(count, id))},
                                        {"frames", Array::of<float>({1, frames, 3}, std::vector<float>(values, 1.0F))}};
  };
  if (model.run(inputs(1, 3, 6)).at("output").dims() != std::vector<std::int64_t>{1, 3, 14}) return "an answer of another shape";
  if (model.run(inputs(1, 0, 0)).at("output").dims() != std::vector<std::int64_t>{1, 0, 14}) return "no steps gave an answer";
  const std::vector<std::pair<std::int64_t, std::int64_t>> wrong{{0, 6}, {14, 6}, {-1, 6}, {1, 5}, {1, 3}, {1, 12}};
  for (const auto& [id, frames] : wrong) {
    const std::string note = refused<rnncore::InputError>([&, &one = id, &size = frames] { model.run(inputs(one, 3, size)); });
    if (!note.empty()) return "ids " + std::to_string(id) + ", " + std::to_string(frames) + " frames: " + note;
  }
  return "";
}

/// A table of sixteen places: where it ends, a stream ends, and stays where it was.
std::string check_places(const rnncore::Model& model) {
  const auto steps = [](std::int64_t count) {
    return std::map<std::string, Array>{{"x", Array::of<float>({count, 5}, std::vector<float>(static_cast<std::size_t>(count) * 5))}};
  };
  auto stream = model.stream();
  stream.push(steps(15));
  const std::string note = refused<rnncore::InputError>([&] { stream.push(steps(2)); });
  if (!note.empty()) return note;
  if (stream.push(steps(1)).at("output").dims() != std::vector<std::int64_t>{1, 3} || stream.steps() != 16) return "another answer";
  return refused<rnncore::InputError>([&] { stream.push(steps(1)); });
}

std::string check_streams(const rnncore::Model& model) {
  const std::string input = model.inputs().front(), output = model.outputs().front();
  auto stream = model.stream();
  stream.push({{input, row({1, 2, 3})}});
  auto other = stream.fork();
  auto again = model.restore(stream.save());
  if (again.steps() != 3) return "a restored stream has another number of steps";
  other.push({{input, row({4})}});
  const Array one = stream.push({{input, row({5})}}).at(output), two = again.push({{input, row({5})}}).at(output);
  if (one.bytes() != two.bytes()) return "a restored stream answers otherwise";
  const Array whole = model.run({{input, Array::of<std::int64_t>({1, 4}, {1, 2, 3, 5})}}).at(output);
  const std::vector<double> all = numbers(whole);
  if (!close(one, {all.end() - static_cast<std::ptrdiff_t>(one.size()), all.end()})) return "chunks differ from the whole";
  const auto before = stream.save();
  const std::string note = refused<rnncore::InputError>([&] { stream.push({{input, row({99999})}}); });
  if (!note.empty()) return note;
  if (stream.save() != before) return "a refused push moved the stream";
  auto damaged = before;
  damaged[damaged.size() / 2] ^= 1;
  const std::string said = refused<rnncore::SnapshotError>([&] { model.restore(damaged); });
  if (!said.empty()) return said;
  if (stream.push({{input, row({})}}).at(output).dims()[0] != 0) return "no steps gave an answer";
  stream.reset();
  return stream.steps() == 0 ? "" : "a stream that was reset has steps";
}

/// Ids, or rows of numbers, as the model takes them.
Array chunk_of(const rnncore::Model& model, const Json& rows) {
  std::vector<std::int64_t> dims{static_cast<std::int64_t>(rows.list().size())};
  if (rows.list().front().kind == Json::Kind::list) dims.push_back(static_cast<std::int64_t>(rows.list().front().list().size()));
  return rnncore::detail::converted(Array::of<double>(dims, numbers(rows)), model.signature().inputs.front().type, "chunk");
}

std::string check_saved(const rnncore::Runtime& runtime, const std::string& folder, const std::string& name, const Json& saved) {
  const rnncore::Model model = runtime.load(folder + name);
  const std::string input = model.inputs().front(), output = model.outputs().front();
  const auto bytes = rnncore::detail::from_base64(saved["snapshot"].string());
  const auto answer = numbers(saved["answer"]);
  const Array first = chunk_of(model, saved["first"]), then = chunk_of(model, saved["then"]);
  const auto near = [&](const Array& got) {
    bool same = got.size() == answer.size();
    for (std::size_t i = 0; same && i < got.size(); ++i) same = std::abs(got.number(i) - answer[i]) <= (name == "layer_norm.onnx" ? 4e-3 : 1e-4);
    return same;
  };
  auto stream = model.restore(bytes);
  if (stream.steps() != first.dims()[0]) return "another number of steps";
  if (!near(stream.push({{input, then}}).at(output))) return "another answer";
  auto own = model.stream();
  own.push({{input, first}});
  if (!near(model.restore(own.save()).push({{input, then}}).at(output))) return "saved and restored here it goes on otherwise";
  std::vector<std::vector<unsigned char>> wrongs{{}, {bytes.begin(), bytes.begin() + 20}, {bytes.begin(), bytes.end() - 1}, bytes};
  wrongs.back()[40] ^= 1;
  for (const auto& wrong : wrongs) {
    const std::string note = refused<rnncore::SnapshotError>([&] { model.restore(wrong); });
    if (!note.empty()) return note;
  }
  const rnncore::Model other = runtime.load(folder + (name == "tagger.onnx" ? "layer_norm.onnx" : "tagger.onnx"));
  return refused<rnncore::SnapshotError>([&] { other.restore(bytes); });
}

std::string check_wrong_input(const rnncore::Model& model) {
  const std::string input = model.inputs().front();
  const std::vector<Arrays> wrongs{{},
                                   {{input, Array::of<std::int64_t>({1, 1}, {99999})}},
                                   {{input, Array::of<float>({1, 1}, {1})}},
                                   {{input, Array::of<std::int64_t>({1}, {1})}},
                                   {{"nothing", Array::of<std::int64_t>({1, 1}, {1})}},
                                   {{input, Array("int64", {0, 3})}}};
  for (const Arrays& wrong : wrongs) {
    const std::string note = refused<rnncore::InputError>([&] { model.run(wrong); });
    if (!note.empty()) return note;
  }
  for (const auto& sizes : std::vector<std::vector<std::int64_t>>{{-1, -3}, {-1}, {1, std::int64_t{1} << 62}, {std::int64_t{1} << 40, std::int64_t{1} << 40}}) {
    const std::string note = refused<rnncore::InputError>([&] { Array("int64", sizes); });
    if (!note.empty()) return note;
  }
  return refused<rnncore::InputError>([&] { model.run({{input, Array("int64", {2, 3})}}, {1, 4}); });
}

/// Words of `load` are those of Python.
rnncore::Reading reading(const Json& options) {
  rnncore::Reading how;
  for (const auto& [name, output] : options["states"].members) how.states[name] = output.string();
  for (const auto& [name, words] : options["axes"].members) how.axes[name] = words.string();
  for (const auto& [name, value] : options["constants"].members) how.constants[name] = Array::of<double>({}, {value.number()});
  for (const auto& [name, values] : options["initial"].members) {
    const auto all = numbers(values);
    how.initial[name] = Array::of<double>({static_cast<std::int64_t>(all.size())}, all);
  }
  if (options.has("chunk")) how.chunk = options["chunk"].integer();
  if (options.has("context")) how.context = options["context"].integer();
  return how;
}

/// A file of others: Python's answers, whole and in chunks, saved between them.
std::string check_foreign(const rnncore::Runtime& runtime, const std::string& folder, const Json& one) {
  const std::string path = folder + one["file"].string(), input = one["input"].string(), output = one["output"].string();
  const rnncore::Reading how = reading(one["options"]);
  const rnncore::Model model = runtime.load(path, how);
  std::vector<std::int64_t> shape;
  for (const Json& size : one["shape"].list()) shape.push_back(size.integer());
  const std::string type = model.signature().inputs.front().type;
  const Array x = rnncore::detail::converted(Array::of<double>(shape, numbers(one["x"])), type, "x");
  const double tolerance = type == "float16" ? 4e-3 : 1e-4;
  const auto answer = numbers(one["answer"]);
  const auto near = [&](const Array& got, std::size_t from) {
    for (std::size_t i = 0; i < got.size(); ++i) if (!(std::abs(got.number(i) - answer[from + i]) <= tolerance)) return false;
    return true;
  };
  const Array whole = model.run({{input, x}}).at(output);
  if (whole.size() != answer.size() || !near(whole, 0)) return "another answer to the whole";
  const std::size_t own = answer.size() / static_cast<std::size_t>(shape[0] * shape[1]);
  const auto& cuts = one["cuts"].list();
  std::vector<rnncore::Stream> streams{model.stream(), model.stream()};  // in turns
  for (std::size_t i = 0; i + 1 < cuts.size(); ++i) {
    for (std::int64_t row = 0; row < 2; ++row) {
      const Array item = rnncore::detail::without_axis(rnncore::detail::slice(x, 0, row, row + 1), 0);
      auto& stream = streams[static_cast<std::size_t>(row)];
      const Array got = stream.push({{input, rnncore::detail::slice(item, 0, cuts[i].integer(), cuts[i + 1].integer())}}).at(output);
      if (got.dims()[0] != cuts[i + 1].integer() - cuts[i].integer()) return "a chunk has another number of steps";
      if (!near(got, static_cast<std::size_t>(row * shape[1] + cuts[i].integer()) * own)) return "another answer to a chunk";
      stream = model.restore(stream.save());
    }
  }
  if (how.chunk) {  // samples one after the other are chunks too
    const Array flat = x.reshaped({2, rnncore::detail::product(shape) / 2});
    if (!near(model.run({{input, flat}}).at(output), 0)) return "another answer to flat samples";
    const std::string short_by_one = refused<rnncore::InputError>([&] { model.run({{input, rnncore::detail::slice(flat, 1, 1, flat.dims()[1])}}); });
    if (!short_by_one.empty()) return short_by_one;
  }
  rnncore::Reading other = how;
  const std::string first = how.states.begin()->first;
  const auto& state = model.signature().states.front();
  other.initial[first] = rnncore::detail::filled("float64", state.item, 0.25);
  std::string note = refused<rnncore::SnapshotError>([&] { runtime.load(path, other).restore(streams[0].save()); });
  if (!note.empty()) return note;
  std::vector<rnncore::Reading> wrongs(7, how);
  wrongs[0].states = {};
  wrongs[1].states = {{first, "nothing"}};
  wrongs[2].states = {{"nothing", how.states.begin()->second}};
  wrongs[3].axes[first] = "batch batch";
  wrongs[4].initial[first] = Array("float32", {1, 1, 1, 1});
  wrongs[5].chunk = 0;
  wrongs[6].constants["nothing"] = Array("float32", {});
  for (const auto& wrong : wrongs) {
    note = refused<rnncore::RnncoreError>([&] { runtime.load(path, wrong).stream(); });
    if (!note.empty()) return "wrong reading " + std::to_string(&wrong - wrongs.data()) + ": " + note;
  }
  return refused<rnncore::ForeignModelError>([&] { runtime.load(path); });
}

std::string check_generator(const rnncore::Model& model, const Json& expected) {
  const rnncore::TextGenerator generator(model);
  for (const Json& one : expected.list()) {
    std::vector<std::string> prefixes, written;
    for (const Json& text : one["prefixes"].list()) prefixes.push_back(text.string());
    for (const Json& text : one["written"].list()) written.push_back(text.string());
    if (generator.generate(prefixes, sampling(one["options"])) != written) return "another text after '" + prefixes[0] + "'";
  }
  rnncore::Sampling wrong;
  wrong.top_p = 2;
  const std::string note = refused<rnncore::InputError>([&] { generator.generate(std::vector<std::string>{"a"}, wrong); });
  if (!note.empty()) return note;
  return refused<rnncore::UnknownTokenError>([&] { generator.generate(std::vector<std::string>{"Ω"}); });
}

std::string check_translator(const rnncore::Model& model, const Json& expected) {
  const rnncore::Translator translator(model);
  for (const Json& one : expected.list()) {
    std::vector<Ids> sources;
    for (const Json& source : one["sources"].list()) sources.push_back(ids_of(source));
    const Json& options = one["options"];
    const std::optional<std::int64_t> most = options.has("maxTokens") ? std::optional<std::int64_t>(options["maxTokens"].integer()) : std::nullopt;
    const auto found = translator.translate(sources, options.has("beam") ? options["beam"].integer() : 1, most,
                                            options.has("lengthPenalty") ? options["lengthPenalty"].number() : 0);
    const auto& wanted = one["found"].list();
    if (found.size() != wanted.size()) return "another number of rows";
    for (std::size_t i = 0; i < found.size(); ++i) {
      if (found[i].size() != wanted[i].list().size()) return "another number of targets";
      for (std::size_t k = 0; k < found[i].size(); ++k) {
        const auto& pair = wanted[i].list()[k].list();
        if (found[i][k].ids != ids_of(pair[0])) return "other ids";
        if (!(std::abs(found[i][k].score - pair[1].number()) <= 1e-4)) return "another score";
      }
    }
  }
  return "";
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) return std::cerr << "check LIBRARY FOLDER\n", 2;
  const std::string folder = std::string(arguments[2]) + "/";
  const rnncore::Runtime runtime{std::string(arguments[1])};
  const auto text = [&folder](const std::string& name) {
    const auto bytes = rnncore::detail::read_file(folder + name);
    return std::string(bytes.begin(), bytes.end());
  };
  const Json expected = Json::parse(text("expected.json"));
  for (const auto& [name, kinds] : expected["files"].members) {
    test("golden cases of " + name, [&] { return check_golden(runtime.load(folder + name), kinds); });
  }
  const auto bytes = rnncore::detail::read_file(folder + "tagger.onnx");
  const rnncore::Model tagger = runtime.load(bytes);
  test("one byte changed is refused", [&] {
    auto changed = bytes;
    changed[changed.size() / 2] ^= 1;
    return refused<rnncore::ModelFileError>([&] { runtime.load(changed); });
  });
  test("a file cut short is refused", [&] {
    const rnncore::detail::Bytes half(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(bytes.size() / 2));
    return refused<rnncore::NotOnnxError>([&] { runtime.load(half); });
  });
  test("no library and no file are refused", [&] {
    const std::string note = refused<rnncore::InputError>([] { rnncore::Runtime(std::string("libnothing.so")); });
    return note.empty() ? refused<rnncore::NotOnnxError>([&] { runtime.load(folder + "nothing.onnx"); }) : note;
  });
  test("weights in a second file: not from memory alone, not changed", [&] {
    const std::string note = refused<rnncore::ModelFileError>([&] { runtime.load(rnncore::detail::read_file(folder + "fused.onnx")); });
    return note.empty() ? refused<rnncore::TamperedModelError>([&] { runtime.load(folder + "changed/fused.onnx"); }) : note;
  });
  test("streams, forks and saved streams", [&] { return check_streams(tagger); });
  for (const auto& [name, saved] : expected["saved"].members) {
    test("a stream of " + name + " that Python saved goes on here, and not in another model", [&, &file = name, &one = saved] { return check_saved(runtime, folder, file, one); });
  }
  test("a model that does not stream says why", [&] {
    return refused<rnncore::NotStreamableError>([&] { runtime.load(folder + "both_ways.onnx").stream(); });
  });
  test("sizes that follow another input's, and ids that begin at 1", [&] { return check_followers(runtime.load(folder + "both_ways.onnx")); });
  test("where places end, a stream ends", [&] { return check_places(runtime.load(folder + "places.onnx")); });
  test("wrong input is refused", [&] { return check_wrong_input(tagger); });
  for (const Json& one : expected["foreign"].list()) {
    test("a file of others, " + one["name"].string(), [&] { return check_foreign(runtime, folder, one); });
  }
  test("states of a file of ours are refused", [&] {
    return refused<rnncore::InputError>([&] { runtime.load(folder + "tagger.onnx", rnncore::Reading{}); });
  });
  test("a generator writes as in Python", [&] { return check_generator(runtime.load(folder + "generator.onnx"), expected["generator"]); });
  test("a translator finds what Python finds", [&] { return check_translator(runtime.load(folder + "translator.onnx"), expected["translator"]); });
  // streams that have read a first chunk, for Python to go on with
  std::cout << std::hex << std::setfill('0');
  for (const auto& [name, saved] : expected["saved"].members) {
    const rnncore::Model model = runtime.load(folder + name);
    auto stream = model.stream();
    stream.push({{model.inputs().front(), chunk_of(model, saved["first"])}});
    std::cout << "snapshot " << name << ": ";
    for (const unsigned char byte : stream.save()) std::cout << std::setw(2) << int{byte};
    std::cout << std::endl;
  }
  return failures == 0 ? 0 : 1;
}
