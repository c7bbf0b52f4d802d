"""Copies the rules of llama.cpp's CUDA backend that decide memory out of its source.

usage: rules.py SOURCE > rules.inc

SOURCE is a tree of llama.cpp. The functions of `ROOTS` decide where an operation runs, how many bytes
a tensor takes and which tensors stay allocated. They go to standard output in the order in which a
compiler needs them, with every function, type and constant of the backend that they use. No kernel is
copied. backend.cpp includes the result and gives the names of `GIVEN` itself.
"""

import pathlib
import re
import sys

# What ggml asks of a backend and a buffer type, in ggml-cuda.cu.
ROOTS = (
    "ggml_backend_cuda_buffer_type_get_alignment",
    "ggml_backend_cuda_buffer_type_get_alloc_size",
    "ggml_backend_cuda_buffer_type_get_name",
    "ggml_backend_cuda_host_buffer_type_get_max_size",
    "ggml_backend_cuda_device_supports_op",
    "ggml_backend_cuda_device_supports_buft",
    "ggml_backend_cuda_device_offload_op",
    "ggml_backend_cuda_graph_optimize",
    "ggml_cuda_op_offload_min_batch",
)

# Names that need a GPU, or a kernel's template. The backend that allocates nothing gives them.
GIVEN = {
    "ggml_backend_cuda_context",
    "ggml_backend_buft_is_cuda_host",
    "ggml_cuda_concurrent_event",
    "ggml_cuda_stream_context",
    "ggml_cuda_flash_attn_ext_vec_case",
    "ggml_cuda_get_device",
    "ggml_cuda_graph_get_key",
    "ggml_cuda_graph_set_enabled",
    "ggml_cuda_info",
    "ggml_cuda_set_device",
}

WORD = re.compile(r"[A-Za-z_]\w*")


def masked(text):
    """The text with comments and literals blanked out, of the same length."""
    pattern = re.compile(r"//[^\n]*|/\*.*?\*/|\"(?:\\.|[^\"\\\n])*\"|'(?:\\.|[^'\\\n])'", re.DOTALL)
    return pattern.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text)


class Definition:
    """A definition at the outermost level of a file, and the conditions of the preprocessor over it."""

    def __init__(self, path, text, code, conditions):
        self.path = path
        self.text = text
        self.words = set(WORD.findall(code))
        self.conditions = tuple(conditions)
        self.names = names_of(code)

    def emitted(self):
        opening = "".join(f"#if {condition}\n" for condition in self.conditions)
        return opening + self.text.strip() + "\n" + "#endif\n" * len(self.conditions)


def names_of(code):
    """The names that a definition gives to others; none for a kernel or a declaration."""
    code = code.strip()
    if code.startswith("#"):
        found = re.match(r"#\s*define\s+(\w+)", code)
        return {found[1]} if found else set()
    if re.search(r"\b__global__\b", code):
        return set()

    head = head_of(code)
    if re.search(r"\b__device__\b", head) and not re.search(r"\b(__host__|constexpr)\b", head):
        return set()
    if head.startswith("typedef"):
        found = re.search(r"\(\s*\*\s*(\w+)\s*\)|(\w+)\s*;?$", code)
        return {found[1] or found[2]} if found else set()
    if "(" in head:
        found = re.search(r"(\w+)\s*\(", head)
        return {found[1]} if found and "{" in code else set()

    value = re.search(r"(\w+)\s*(?:\[[^\]]*\]\s*)*=", code)
    kind = re.match(r"(?:struct|enum|class|union)\s+(?:class\s+)?(\w+)", head)
    if kind and "{" in code:
        return {kind[1]}
    return {value[1]} if value else set()


def head_of(code):
    """The beginning of a definition, up to its body or value, without its template's parameters."""
    code = code.strip()
    if code.startswith("template"):
        depth = 0
        for position, character in enumerate(code):
            depth += {"<": 1, ">": -1}.get(character, 0)
            if character == ">" and depth == 0:
                code = code[position + 1 :].strip()
                break

    code = re.sub(r"__launch_bounds__\s*\([^{]*?\)\s*(?=static|void)", "", code)
    depth = 0
    for position, character in enumerate(code):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth == 0 and character in "{=;":
            return code[:position].strip()
    return code


def negated(condition):
    return f"!({condition})"


def condition_of(line):
    """The expression of an opening line of the preprocessor."""
    kind, _, rest = line.lstrip("# \t").partition(" ")
    rest = masked(rest).strip()
    if kind == "ifdef":
        return f"defined({rest})"
    if kind == "ifndef":
        return f"!defined({rest})"
    return rest


def definitions(path):
    """The file's definitions. Braces are counted along the first branch of each condition."""
    text = path.read_text(encoding="utf-8", errors="replace")
    code = masked(text)
    conditions, depths = [], []
    depth, begin, position = 0, 0, 0
    found = []

    def finish(end):
        nonlocal begin
        if code[begin:end].strip():
            found.append(Definition(path, text[begin:end], code[begin:end], conditions))
        begin = end

    while position < len(code):
        line_start = code[code.rfind("\n", 0, position) + 1 : position].strip() == ""
        if code[position] == "#" and line_start:
            end = position
            while True:
                end = code.find("\n", end)
                end = len(code) if end < 0 else end
                if code[end - 1] != "\\":
                    break
                end += 1
            line = code[position:end].replace("\\\n", " ")
            word = WORD.search(line)
            word = word[0] if word else ""

            outermost = depth == 0 and not code[begin:position].strip()
            if word in ("if", "ifdef", "ifndef"):
                depths.append((depth, outermost))
                if outermost:
                    conditions.append(condition_of(line))
            elif word in ("else", "elif"):
                depth, was_outermost = depths[-1]
                if was_outermost:
                    conditions[-1] = negated(conditions[-1])
                    if word == "elif":
                        conditions[-1] += f" && ({condition_of(line)})"
            elif word == "endif":
                _, was_outermost = depths.pop()
                if was_outermost:
                    conditions.pop()
            if outermost or (depths and word == "endif" and not code[begin:position].strip()):
                begin = position
                if word == "define":
                    finish(end)
                begin = end
            position = end
            continue

        character = code[position]
        if character in "{(":
            depth += 1
        elif character in "})":
            depth -= 1
            if character == "}" and depth == 0 and not needs_semicolon(code[begin:position]):
                finish(position + 1)
        elif character == ";" and depth == 0:
            finish(position + 1)
        position += 1
    return found


def needs_semicolon(code):
    """Whether a closing brace leaves the definition open: a type or a value, not a function's body."""
    begin = code.find("{")
    value = code.find("=", 0, begin)
    return "(" not in head_of(code) or (value >= 0 and "(" not in code[:value])


class Source:
    """The definitions of all files of the CUDA backend, by name."""

    def __init__(self, folder):
        self.by_name = {}
        paths = sorted(folder.glob("*.cuh")) + [folder / "ggml-cuda.cu"] + sorted(folder.glob("*.cu"))
        for path in dict.fromkeys(paths):
            for definition in definitions(path):
                for name in definition.names:
                    self.by_name.setdefault(name, []).append(definition)

    def find(self, name, path):
        """The definitions that a name means in a file: its own, else those of headers, else any."""
        found = self.by_name.get(name, [])
        own = [definition for definition in found if definition.path == path]
        headers = [definition for definition in found if definition.path.suffix == ".cuh"]
        return own or headers or found


def ordered(source, roots, start):
    """Definitions such that each comes after what it uses."""
    done, order = set(), []

    def visit(name, path):
        for definition in source.find(name, path):
            if id(definition) in done:
                continue
            done.add(id(definition))
            words = set(definition.words)
            for condition in definition.conditions:
                words |= set(WORD.findall(condition))
            for word in sorted(words - definition.names - GIVEN):
                visit(word, definition.path)
            order.append(definition)

    for root in roots:
        if not source.find(root, start):
            sys.exit(f"rules.py: {start} does not define {root}")
        visit(root, start)
    return order


def compiled_vector_kernels(source):
    """Which vector kernels of flash attention a default build holds, as its build files define them."""
    types = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "bf16", "f16")
    options = (source / "ggml/CMakeLists.txt").read_text()
    chosen = re.search(r'GGML_CUDA_FA_QUANTS\s+"([^"]*)"', options)
    chosen = chosen[1].split(";") if chosen else ["f16-f16", "q4_0-q4_0", "q8_0-q8_0"]
    for key in types:
        for value in types:
            yield f"#define GGML_CUDA_FA_{key.upper()}_{value.upper()} {int(f'{key}-{value}' in chosen)}\n"


def main():
    tree = pathlib.Path(sys.argv[1])
    folder = tree / "ggml/src/ggml-cuda"
    source = Source(folder)
    sys.stdout.writelines(compiled_vector_kernels(tree))
    for definition in ordered(source, ROOTS, folder / "ggml-cuda.cu"):
        print(definition.emitted())


if __name__ == "__main__":
    main()
