"""`lossk demo` from end to end on little text, and the parts it is made of."""

import json
import re
import signal
from pathlib import Path

import pytest
import torch
from lossk.cli import app as cli
from lossk.cli import demo as command
from lossk.cli import demo_memory, demo_model, demo_text, main
from typer.testing import CliRunner

MIB = 2**20


def words(output: str) -> str:
    """Output without the boxes and line breaks that depend on the terminal's width."""
    return " ".join(re.sub(r"[^\x00-\x7f]", " ", output).split())


def run(*args: str):
    return CliRunner().invoke(cli.app, ["demo", *map(str, args)])


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Models as small as here gain nothing from more, and lose much where other work shares the machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One whole run with a quarter of the batch: its output and the folder it wrote."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(demo_model.SIZES, "small", demo_model.SMALL._replace(batch=2))
        result = run("--seconds", 5, "--vocab", 700, "--text-mb", 0.6, "--out", out, "--seed", 3)
    assert result.exit_code == 0, result.output
    return words(result.output), out


@pytest.fixture
def small(monkeypatch):
    """Steps of 64 tokens, where a test is about the flow and not the figures."""
    monkeypatch.setitem(demo_model.SIZES, "small", demo_model.SMALL._replace(batch=2, context=32))


def test_whole_run_reports_both_heads(finished):
    output, out = finished
    figures = json.loads((out / "demo.json").read_text())
    assert figures["vocab"] == 700 and figures["tokens_per_step"] == 512 and not figures["interrupted"]
    assert figures["steps"] >= 2
    for head in figures["heads"].values():
        assert {len(values) for values in head["per_step"].values()} == {figures["steps"]}
        assert 0 < head["head_seconds"] < head["step_seconds"]
        assert head["head_peak_bytes"] >= 4 * demo_model.DIM * (700 + 512)  # dw and dh at least
        assert f"{head['validation_loss']:.4f}" in output
    assert "lossk needs" in output and f"{figures['steps']} steps of 512 tokens, vocabulary 700" in output


def test_both_heads_train_alike(finished):
    heads = json.loads((finished[1] / "demo.json").read_text())["heads"]
    assert heads["torch"]["per_step"]["loss"] == pytest.approx(heads["lossk"]["per_step"]["loss"], rel=1e-3)
    assert heads["torch"]["validation_loss"] == pytest.approx(heads["lossk"]["validation_loss"], rel=1e-3)
    losses = heads["lossk"]["per_step"]["loss"]  # one batch may be harder than all before it
    assert torch.tensor(losses[len(losses) // 2 :]).mean() < losses[0]


def test_picture_is_a_png_of_some_size(finished):
    header = (finished[1] / "demo.png").read_bytes()[:24]
    width, height = int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")
    assert header.startswith(b"\x89PNG\r\n\x1a\n") and width > 1000 and height > 600


def test_the_larger_model(monkeypatch, tmp_path):
    large = demo_model.SIZES["100m"]
    with torch.device("meta"):
        blocks = demo_model.SmallLM(2, large).blocks
    assert sum(p.numel() for p in blocks.parameters()) == pytest.approx(85e6, rel=0.01)
    monkeypatch.setitem(demo_model.SIZES, "100m", large._replace(layers=1, batch=1, context=32))
    result = run("--seconds", 0.1, "--vocab", 300, "--text-mb", 0.3, "--model", "100m", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures["tokens_per_step"] == 32 and figures["parameters"] > 12 * 768**2


def test_says_when_the_text_yields_fewer_entries(small, tmp_path):
    result = run("--seconds", 0.1, "--vocab", 100_000, "--text-mb", 0.08, "--out", tmp_path)
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert result.exit_code == 0, result.output
    assert figures["vocab"] < 100_000 and f"yields only {figures['vocab']} of 100000 entries" in words(result.output)


def test_bfloat16_runs(small, tmp_path):
    result = run("--seconds", 0.1, "--vocab", 300, "--text-mb", 0.3, "--dtype", "bfloat16", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures["dtype"] == "bfloat16" and figures["validation_loss_gap"] < 0.01


def interrupt_at(monkeypatch, calls: set[int]) -> None:
    """Raise SIGINT inside these steps, counted from 1 over both runs."""
    step, made = demo_model.Run.step, 0

    def interrupting(self, tokens, targets, learning_rate):
        nonlocal made
        made += 1
        if made in calls:
            signal.raise_signal(signal.SIGINT)
        step(self, tokens, targets, learning_rate)

    monkeypatch.setattr(demo_model.Run, "step", interrupting)


def test_ctrl_c_reports_the_steps_that_both_runs_have(small, monkeypatch, tmp_path):
    handler = signal.getsignal(signal.SIGINT)
    interrupt_at(monkeypatch, {3})
    result = run("--seconds", 60, "--vocab", 300, "--text-mb", 0.3, "--out", tmp_path)
    assert result.exit_code == 130, result.output
    figures = json.loads((tmp_path / "demo.json").read_text())
    assert figures["interrupted"] and figures["steps"] == 2
    assert [len(head["per_step"]["loss"]) for head in figures["heads"].values()] == [2, 2]
    assert "lossk needs" in words(result.output) and (tmp_path / "demo.png").exists()
    assert signal.getsignal(signal.SIGINT) is handler


def test_second_ctrl_c_ends_at_once(small, monkeypatch, tmp_path):
    interrupt_at(monkeypatch, {1, 2})
    result = run("--seconds", 60, "--vocab", 300, "--text-mb", 0.3, "--out", tmp_path)
    assert result.exit_code == 130 and "nothing to report" in result.output and "Traceback" not in result.output
    assert not (tmp_path / "demo.json").exists()


def test_ctrl_c_before_the_training(monkeypatch, tmp_path):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo_text, "train_tokenizer", interrupted)
    result = run("--text-mb", 0.3, "--out", tmp_path)
    assert result.exit_code == 130 and "nothing to report" in result.output


@pytest.mark.parametrize(
    "args, message",
    [
        (("--vocab", 200), "--vocab 200: the 256 bytes and a mark for a file's end need 257"),
        (("--vocab", 10**12), "no standard library yields more than 1048576"),
        (("--seconds", 0), "--seconds 0.0: expected more than 0"),
        (("--seconds", "nan"), "--seconds nan: expected more than 0"),
        (("--dtype", "int8"), "--dtype int8: expected float32 or bfloat16"),
        (("--device", "toaster"), "--device toaster: expected cpu, cuda or cuda:N"),
        (("--device", "meta"), "--device meta: expected cpu, cuda or cuda:N"),
        (("--device", "cuda:99"), "CUDA devices here"),
        (("--text-mb", -1), "--text-mb -1.0: expected more than 0"),
        (("--text-mb", 0.005), "raise --text-mb"),
        (("--text-mb", 1e-9), "raise --text-mb"),
    ],
)
def test_bad_options(args, message, tmp_path):
    result = run("--out", tmp_path, *args)
    assert result.exit_code == 2 and message in words(result.output), result.output


def test_out_must_be_a_writable_folder(tmp_path):
    file = tmp_path / "file"
    file.touch()
    for out in (file, file / "below"):
        result = run("--out", out)
        assert result.exit_code == 2 and "cannot write there" in words(result.output)


def test_head_that_cannot_run_is_named(small, monkeypatch, tmp_path):
    def broken(h, w, y):
        raise RuntimeError("no kernels [for this device]")

    monkeypatch.setitem(demo_model.HEADS, "lossk", broken)
    result = run("--vocab", 300, "--text-mb", 0.3, "--out", tmp_path)
    assert result.exit_code == 1
    assert "lossk's head does not run here: no kernels [for this device]" in words(result.output)


def test_missing_packages_are_named_in_one_line(monkeypatch):
    monkeypatch.setattr("lossk.cli.find_spec", lambda name: None)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == "lossk: missing typer, rich; install with: pip install 'lossk[demo]'"


@pytest.fixture
def tree(tmp_path):
    """Thirty files of source, one of them twice, one of broken UTF-8, and one that belongs to someone else."""
    for i in range(30):
        (tmp_path / f"m{i}.py").write_text(f"x = {i}\n" * 10)
    (tmp_path / "copy.py").write_text("x = 7\n" * 10)
    (tmp_path / "latin.py").write_bytes(b"# caf\xe9\n")
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other.py").write_text("other = 1\n")
    return tmp_path


def test_corpus_is_split_by_whole_files_without_overlap(tree):
    corpus = demo_text.load_corpus(1, tree)
    assert corpus == demo_text.load_corpus(1, tree)
    assert corpus.files == len({*corpus.train, *corpus.held_out}) == 31  # the copy once, latin.py too
    assert len(corpus.held_out) == 4 and "# caf\ufffd\n" in corpus.train + corpus.held_out
    assert not any("other" in text for text in corpus.train + corpus.held_out)


def test_corpus_keeps_to_its_size(tree):
    assert 400 < sum(map(len, demo_text.load_corpus(600e-6, tree).train)) <= 600
    with pytest.raises(demo_text.TooLittleText, match="no Python source"):
        demo_text.load_corpus(1, tree / "site-packages" / "none")


def test_standard_library_is_split_the_same_way_each_time():
    corpus = demo_text.load_corpus(0.5)
    assert corpus == demo_text.load_corpus(0.5) and 0.4 < corpus.megabytes <= 0.5
    assert corpus.held_out and not set(corpus.train) & set(corpus.held_out)


def test_tokens_give_the_text_back():
    texts = ["def f(x):\n\treturn x  # größer als 日本\n", "x = 1\n"]
    tokenizer = demo_text.train_tokenizer(texts, 280)
    tokens = demo_text.encode(tokenizer, texts)
    assert tokenizer.decode(tokens.tolist(), skip_special_tokens=False) == "".join(
        t + demo_text.FILE_END for t in texts
    )
    assert tokens.max() < tokenizer.get_vocab_size() <= 280


def test_batches_are_the_same_for_the_same_seed():
    stream, cpu = torch.arange(1000), torch.device("cpu")
    first, again, other = (demo_text.Batches(stream, 4, 16, seed, cpu) for seed in (1, 1, 2))
    for _ in range(3):
        (x, y), (x2, _), (x3, _) = first.next(), again.next(), other.next()
        assert torch.equal(x, x2) and not torch.equal(x, x3) and torch.equal(x + 1, y)


def test_held_out_windows_do_not_overlap():
    x, y = demo_text.held_out_windows(torch.arange(1000), 8, 100, torch.device("cpu"))
    assert x.shape == (8, 100) and torch.equal(x + 1, y) and len(x.unique()) == 800
    x, _ = demo_text.held_out_windows(torch.arange(350), 8, 100, torch.device("cpu"))
    assert len(x.unique()) == 300  # as many as there are


def test_head_memory_counts_logits_where_there_are_logits():
    h, w, y = torch.randn(1024, 32), torch.randn(32768, 32), torch.randint(32768, (1024,))
    logits = 4 * 1024 * 32768
    peak = {name: demo_memory.head_peak_bytes(head, h, w, y) for name, head in demo_model.HEADS.items()}
    assert 2 * logits < peak["torch"] < 4 * logits
    assert peak["lossk"] < logits


def test_head_memory_counts_what_torch_does_not_allocate():
    def hoarding(h, w, y):
        bytearray(64 * MIB)[:: 2**12] = b"\x01" * (64 * MIB // 2**12)
        return (h @ w.T).sum()

    peak = demo_memory.head_peak_bytes(hoarding, torch.randn(16, 4), torch.randn(8, 4), torch.zeros(16).long())
    if Path("/proc/self/clear_refs").exists():
        assert 60 * MIB < peak < 80 * MIB
    else:  # then only tensors are seen
        assert 0 < peak < MIB


def test_learning_rate_rises_and_falls():
    rates = [demo_model.rate(percent / 100) for percent in range(150)]
    assert max(rates) == rates[10] == pytest.approx(demo_model.PEAK_RATE) and rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True) and rates[-1] == pytest.approx(0.1 * max(rates))
    assert rates[0] == pytest.approx(0.1 * max(rates))


def test_commands_are_documented():
    output = words(CliRunner().invoke(cli.app, ["demo", "--help"]).output)
    assert all(f"--{option}" in output for option in ("seconds", "vocab", "device", "dtype", "out", "seed", "text-mb"))
    assert command.demo.__doc__.split(".")[0] in output
