"""cuda/check.py on what the tools said once: what it reads, and that it refuses what it is there to refuse."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "cuda" / "check.py"
spec = importlib.util.spec_from_file_location("cuda_check", SCRIPT)  # not `import cuda`, which NVIDIA's package takes
check = sys.modules["cuda_check"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

WGMMA = "_ZN5lossk4head9lse_wgmmaINS_6device4Bf16EEEvPf"
BLOCK = check.Block("cuda/head/lse/config.h", "head::WgmmaConfig", 197728, 384)
LSE = "head::lse_wgmma<device::Bf16>"
PTXAS = f"""\
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '{WGMMA}' for 'sm_90a'
ptxas info    : Function properties for {WGMMA}
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 168 registers, used 1 barriers, 32 bytes smem
ptxas info    : Compile time = 48.971 ms
ptxas info    : Compiling entry function '_Z4lessv' for 'sm_90a'
ptxas info    : Function properties for _Z4lessv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 24 registers, used 0 barriers, 372 bytes cmem[0]
ptxas info    : Compile time = 1.542 ms
ptxas info    : Function properties for _Z8not_inlinedv
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
"""
SASS = f"""\
	.target	sm_90a
//--------------------- .text.{WGMMA} --------------------------
	.section	.text.{WGMMA},"ax",@progbits
	.align	128
{WGMMA}:
        /*0000*/                   LDC R1, c[0x0][0x28] ;
        /*0040*/               @P0 BRA `(.L_x_1) ;
        /*0110*/                   SYNCS.EXCH.64 URZ, [UR8], UR4 ;
.L_x_41:
        /*0120*/              @!P0 SYNCS.PHASECHK.TRANS64.TRYWAIT P0, [UR12], R2 ;
        /*0130*/             @!UP0 UTMALDG.2D [UR8], [UR4], desc[URZ] ;
        /*0170*/                   BAR.SYNC.DEFER_BLOCKING 0x0 ;
        /*01b0*/                   USETMAXREG.TRY_ALLOC.CTAPOOL UP0, 0xe8 ;
        /*02e0*/                   HGMMA.64x64x16.F32.BF16 R24, gdesc[UR4], RZ, !UPT, gsb0 ;
        /*0350*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0360*/                   MUFU.EX2 R3, R3 ;
        /*0370*/                   MUFU.LG2 R3, R3 ;
        /*0380*/                   EXIT ;
	.section	.text._Z4lessv,"ax",@progbits
        /*0000*/                   LDSM.16.M88.4 R4, [R2] ;
        /*0010*/                   BARRIERLIKE ;
"""
SPILL = """\
ptxas info    : Compiling entry function '_Z5spillPfPKf' for 'sm_80'
ptxas info    : Function properties for _Z5spillPfPKf
    544 bytes stack frame, 652 bytes spill stores, 1012 bytes spill loads
ptxas info    : Used 32 registers, used 1 barriers, 544 bytes cumulative stack size, 368 bytes cmem[0]
"""
INFO = "ptxas info    : "  # so ptxas calls what costs half the speed
SERIALIZED = f"(C7510) Potential Performance Loss: wgmma.mma_async instructions are serialized in function '{WGMMA}'"
IGNORED = "ptxas warning : (C7508) setmaxnreg is ignored"


def kernels(ptxas=PTXAS, sass=SASS, file="cuda/head/lse_sm90.cu"):
    said, counts = check.parse_ptxas(ptxas), check.parse_sass(sass)
    names = {WGMMA: LSE, "_Z4lessv": "less"}
    return [check.Kernel(file, names[n], "sm_90a", r, said.shared[n], counts[n]) for n, r in said.registers.items()]


def test_reads_registers_shared_memory_and_instructions():
    assert check.parse_ptxas(PTXAS).trouble == []
    wgmma, less = kernels()
    assert (wgmma.registers, wgmma.shared, less.registers, less.shared) == (168, 32, 24, 0)
    assert wgmma.row == (
        "| cuda/head/lse_sm90.cu | `head::lse_wgmma<device::Bf16>` | sm_90a | 168 | 32 | 12 "
        "| HGMMA 1, UTMALDG 1, SYNCS 2, USETMAXREG 1, MUFU.EX2 1, BAR 1 |"
    )
    assert less.instructions == {"all": 2, "LDSM": 1}


@pytest.mark.parametrize(
    "demangled, short",
    [
        ("void lossk::probe::probe_kernel<90>(int*)", "probe::probe_kernel<90>"),
        ("lossk::head::merge(lossk::head::Params, void (*)(int))", "head::merge"),
        (
            "void lossk::(anonymous namespace)::k<lossk::Bf16, (lossk::(anonymous namespace)::M)1, 7>(float (&) [4])",
            "k<Bf16, (M)1, 7>",
        ),
    ],
)
def test_names_are_short_and_keep_their_template_arguments(demangled, short):
    assert check.shorten(demangled) == short


def test_names_inside_messages_are_demangled():
    assert check.demangle(f"in '{WGMMA}'\n") == "in 'void lossk::head::lse_wgmma<lossk::device::Bf16>(float*)'\n"


def test_a_spill_is_refused():
    assert check.parse_ptxas(SPILL).trouble == ["'_Z5spillPfPKf' has 544 bytes of stack, 1664 bytes spilled"]
    warned = "ptxas error   : Registers are spilled to local memory in function '_Z5spillPfPKf', 652 bytes spill stores"
    assert check.parse_ptxas(f"{warned}\n{SPILL}").trouble == [warned]  # once is enough
    not_inlined = PTXAS.replace("_Z8not_inlinedv\n    0 bytes stack", "_Z8not_inlinedv\n    16 bytes stack")
    assert check.parse_ptxas(not_inlined).trouble == ["'_Z8not_inlinedv' has 16 bytes of stack, 0 bytes spilled"]
    stores = kernels(sass=SASS.replace("MUFU.LG2 R3, R3", "STL.64 [R1], R2"))
    assert check.broken_rules(stores) == [f"cuda/head/lse_sm90.cu, {LSE}, sm_90a: uses local memory (STL)"]


@pytest.mark.parametrize("line", [INFO + SERIALIZED, IGNORED])
def test_what_ptxas_warns_of_is_refused_whatever_it_calls_it(line):
    assert check.parse_ptxas(f"{line}\n{PTXAS}").trouble == [line]


@pytest.mark.parametrize("instruction", ["HGMMA", "UTMALDG", "SYNCS", "USETMAXREG"])
def test_a_wgmma_kernel_without_its_instructions_is_refused(instruction):
    assert check.broken_rules(kernels()) == []
    other = SASS.replace(f" {instruction}.", " OTHER.")
    assert check.broken_rules(kernels(sass=other)) == [f"cuda/head/lse_sm90.cu, {LSE}, sm_90a: has no {instruction}"]


def test_a_product_that_fences_all_memory_for_each_stage_is_refused():
    fence = "        /*0370*/                   MEMBAR.ALL.GPU ;\n"
    place = "        /*0360*/                   MUFU.EX2"
    assert check.broken_rules(kernels(sass=SASS.replace(place, 2 * fence + place))) == []
    [problem] = check.broken_rules(kernels(sass=SASS.replace(place, 3 * fence + place)))
    assert problem == f"cuda/head/lse_sm90.cu, {LSE}, sm_90a: fences all memory in 3 places, not 2 at most"


def test_an_mma_kernel_without_its_instructions_is_refused():
    full = {"HMMA": 64, "LDSM": 24, "LDGSTS": 18}
    kernel = check.Kernel("cuda/head/lse.cu", "head::lse_mma_sync<device::Bf16>", "sm_80", 128, 0, full)
    assert check.broken_rules([kernel]) == []
    for name in full:
        [problem] = check.broken_rules([kernel._replace(instructions=full | {name: 0})])
        assert problem.endswith(f"has no {name}")
    plain = kernel._replace(name="head::lse_merge<device::tile_mma>", instructions={})
    assert check.broken_rules([plain]) == []  # template arguments promise nothing


def test_a_changed_row_is_refused_with_both_rows():
    table = check.render(kernels(), [BLOCK], "13.0.88")
    assert table.count("\n\n") == 5 and "13.0.88" in table
    assert check.differences([*kernels(), BLOCK], table) == []
    larger = BLOCK._replace(shared=BLOCK.shared + 16)
    assert check.differences([*kernels(), larger], table) == [f"  was {BLOCK.row}", f"  is  {larger.row}"]
    changed = kernels(PTXAS.replace("Used 168", "Used 170"))
    assert check.differences([*changed, BLOCK], table) == [f"  was {kernels()[0].row}", f"  is  {changed[0].row}"]
    more = kernels(sass=SASS.replace("MUFU.LG2", "MUFU.EX2"))
    assert [line[:6] for line in check.differences([*more, BLOCK], table)] == ["  was ", "  is  "]
    assert check.differences([*kernels()[:1], BLOCK], table) == [f"  was {kernels()[1].row}", "  is  gone"]
    assert check.differences(kernels(), "")[:2] == ["  was not there", f"  is  {kernels()[0].row}"]


def test_configurations_are_asked_for_their_shared_memory(tmp_path):
    (tmp_path / "cuda/room/kernel").mkdir(parents=True)
    config = "struct BigConfig {\n  static constexpr int kThreads = 64, kSharedBytes = 48 * 1024;\n};"
    (tmp_path / "cuda/room/kernel/config.h").write_text(f"namespace lossk::room {{\n{config}\n}}\n")
    assert check.find_blocks(tmp_path) == [check.Block("cuda/room/kernel/config.h", "room::BigConfig", 49152, 64)]


def test_files_are_compiled_for_what_their_names_say(tmp_path):
    for file in ("cuda/a/x.cu", "cuda/a/x_sm90.cu", "cuda/x_sm100.cu", "tests/device/conformance/y.cu"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "tests/device/conformance/y_sm90.cu").touch()
    assert [(job.file, job.arch) for job in check.find_jobs(tmp_path) if not job.test] == [
        ("cuda/a/x.cu", "sm_80"),
        ("cuda/a/x.cu", "sm_90"),
        ("cuda/a/x_sm90.cu", "sm_90a"),
        ("cuda/x_sm100.cu", "sm_100a"),
    ]
    assert [(Path(job.file).name, job.arch) for job in check.find_jobs(tmp_path) if job.test] == [
        ("y.cu", "sm_80"),
        ("y.cu", "sm_90a"),
        ("y_sm90.cu", "sm_90a"),
    ]


def test_another_compiler_is_refused(tmp_path):
    nvcc = tmp_path / "nvcc"
    nvcc.write_text("#!/bin/sh\necho Cuda compilation tools, release 12.4, V12.4.131\n")
    nvcc.chmod(0o755)
    with pytest.raises(SystemExit, match="no nvdisasm"):
        check.main(["--nvcc", str(nvcc)])
    nvcc.with_name("nvdisasm").touch()
    with pytest.raises(SystemExit, match="not the pinned 13"):
        check.main(["--nvcc", str(nvcc)])
    with pytest.raises(SystemExit, match="no nvcc"):
        check.main(["--nvcc", str(tmp_path / "none" / "nvcc")])


def test_from_the_compilers_output_to_kernels(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "ptxas").write_text(PTXAS)
    (tmp_path / "sass").write_text(SASS)
    nvcc, arguments = tmp_path / "nvcc", tmp_path / "arguments"
    for program, script in ((nvcc, f"echo $@ >> {arguments}; cat ptxas >&2"), (tmp_path / "nvdisasm", "cat sass")):
        program.write_text(f"#!/bin/sh\ncd {tmp_path}; {script}\n")
        program.chmod(0o755)
    jobs = [check.Job("cuda/head/lse_sm90.cu", "sm_90a"), check.Job("tests/x.cu", "sm_80", test=True)]
    found, trouble = check.run_all(jobs, nvcc)
    assert (found, trouble) == (kernels(), [])
    said = arguments.read_text()
    assert "-gencode=arch=compute_90a,code=sm_90a -cubin -std=c++20" in said and "-Werror all-warnings" in said
    assert said.count("-Itests") == 1

    nvcc.write_text(f"#!/bin/sh\necho '{INFO}{SERIALIZED}' >&2; cat {tmp_path}/ptxas >&2\n")
    found, trouble = check.run_all(jobs, nvcc)
    assert not found and [line for line in trouble if not line.startswith(" ")] == [
        "cuda/head/lse_sm90.cu for sm_90a:",
        "tests/x.cu for sm_80:",
    ]
    nvcc.write_text("#!/bin/sh\necho no host compiler >&2; exit 2\n")
    assert check.run_all(jobs[:1], nvcc) == ([], ["cuda/head/lse_sm90.cu for sm_90a:", "  no host compiler"])


@pytest.mark.parametrize("update", [[], ["--update"]])
def test_main_compares_updates_and_refuses(update, monkeypatch, tmp_path, capsys):
    table, nvcc = tmp_path / "RESOURCES.md", tmp_path / "nvcc"
    for tool in (nvcc, nvcc.with_name("nvdisasm")):
        tool.touch()
    found = kernels()
    monkeypatch.setattr(check, "ROOT", tmp_path)
    monkeypatch.setattr(check, "TABLE", table)
    monkeypatch.setattr(check, "compiler_version", lambda nvcc: "13.0.88")
    monkeypatch.setattr(check, "demangle", lambda text: text)
    monkeypatch.setattr(check, "find_blocks", lambda root: [BLOCK])
    monkeypatch.setattr(check, "run_all", lambda jobs, nvcc: (found, []))
    command = ["--nvcc", str(nvcc), *update]

    assert check.main(command) == (0 if update else 1)
    output = capsys.readouterr().out
    if update:
        assert table.read_text() == check.render(found, [BLOCK], "13.0.88")
        assert output.endswith("cuda-check: 2 kernels in 1 files, all within the table\n")
    else:
        assert check.UPDATE in output and output.endswith("cuda-check: failed\n") and not table.exists()

    # Neither a trouble nor a broken rule gets into the table.
    table.write_text(before := check.render(found, [BLOCK], "13.0.88"))
    monkeypatch.setattr(check, "run_all", lambda jobs, nvcc: ([], [IGNORED]))
    assert check.main(command) == 1 and IGNORED in capsys.readouterr().out
    slow = [k._replace(instructions={}) for k in found]
    monkeypatch.setattr(check, "run_all", lambda jobs, nvcc: (slow, []))
    assert check.main(command) == 1 and "has no HGMMA" in capsys.readouterr().out
    assert table.read_text() == before
