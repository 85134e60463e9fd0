"""Every audit can fail, each on a planted defect; right variants pass; what is registered passes or says its defect."""

from __future__ import annotations

import pytest
import torch

from zeta_bench.audit import AUDITS, Finding, audit, findings_of, run_audits
from zeta_bench.audit.case import LENGTHS, Case, N, Tally, scattered_mask, tokens
from zeta_bench.audit.zeta import define_code, define_window
from zeta_bench.errors import Unsupported, UsageError, ZetaBenchError
from zeta_bench.ops import morton
from zeta_bench.records import Store
from zeta_bench.registry import Choice, Variant, catalogue, find_variant


def planted(name: str, **settings) -> Choice:
    return Choice(f"planted.{name}", Variant(f"planted:{name}", "planted"), settings)


def status(choice: Choice, id: str, causal: bool = True) -> str:
    (finding,) = audit(choice, causal=causal, only=[id])
    return finding.status


def failed(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.status == "fail"]


GENERIC = [id for id in AUDITS if id not in ("codes", "limits", "gamma")]


@pytest.mark.parametrize("name", ["Clean", "Coded"])
def test_a_right_variant_passes_every_audit_in_both_directions(name):
    findings = audit(planted(name))
    assert not failed(findings)
    assert [f.id for f in findings if f.direction == "causal"] == GENERIC
    assert [f.id for f in findings if f.direction == "bidirectional"] == GENERIC[2:]
    assert {f.status for f in findings} == {"pass"}


DEFECTS = [
    ("causality-value", "Unmasked"),
    ("causality-value", "DetachedMax"),
    ("causality-value", "SequenceRange"),
    ("causality-value", "GlobalWindow"),
    ("causality-value", "SequenceMax"),
    ("causality-value", "LengthScaled"),
    ("causality-value", "ZetaSequenceRange"),
    ("causality-gradient", "Unmasked"),
    ("reference", "WrongReference"),
    ("reference", "WrongBackward"),
    ("padding", "PaddingLeak"),
    ("padding", "PaddingNaN"),
    ("padding", "LengthScaled"),
    ("batch-independence", "BatchStatistics"),
    ("batch-independence", "LongestOfBatch"),
    ("determinism", "AlwaysDropout"),
    ("determinism", "CarriesOver"),
    ("odd-lengths", "FailsAtOne"),
    ("odd-lengths", "BlockOnly"),
    ("odd-lengths", "WrongDtype"),
    ("low-precision", "Overflows"),
    ("low-precision", "Cancels"),
    ("low-precision", "WrongDtype"),
    ("inputs-unchanged", "InPlace"),
    ("inputs-unchanged", "UpstreamInPlace"),
    ("codes", "ZetaSequenceRange"),
    ("codes", "ZetaUnbounded"),
    ("limits", "ZetaLimitOffByOne"),
    ("limits", "ZetaSelectsPadding"),
    ("limits", "ZetaRangeInSearch"),
    ("limits", "ZetaSelectsTwice"),
    ("gamma", "ZetaGammaAboveOne"),
    ("gamma", "ZetaGammaNegative"),
]


@pytest.mark.parametrize(("id", "name"), DEFECTS)
def test_an_audit_finds_its_planted_defect(id, name):
    assert status(planted(name), id) == "fail"


def test_every_audit_has_a_planted_defect():
    assert {id for id, _ in DEFECTS} == set(AUDITS)


@pytest.mark.parametrize(
    "name", ["DetachedMax", "SequenceRange", "GlobalWindow", "SequenceMax", "LengthScaled", "ZetaSequenceRange"]
)
def test_a_gradient_is_blind_to_leaks_that_values_show(name):
    findings = audit(planted(name), causal=True, only=["causality-value", "causality-gradient"])
    assert {f.id: f.status for f in findings} == {"causality-value": "fail", "causality-gradient": "pass"}


def swapped(cells, width):
    return INTERLEAVE(cells.flip(-1), width)


def colliding(cells, width):
    return INTERLEAVE(cells & ~1, width)


INTERLEAVE = morton._interleave


@pytest.mark.parametrize("interleave", [swapped, colliding])
def test_codes_with_swapped_bits_or_shared_cells_are_found(interleave, monkeypatch):
    monkeypatch.setattr(morton, "_interleave", interleave)
    assert status(find_variant("zeta"), "codes") == "fail"


@pytest.mark.parametrize(
    "settings", [{"d_k": 1}, {"d_k": 2, "bits": 20}, {"d_k": 16, "bits": 5}, {"d_k": 8, "bits": 3}]
)
def test_codes_and_limits_hold_for_other_widths(settings):
    choice = find_variant("zeta").with_settings({**settings, "chunk": 5, "k": 7})
    findings = audit(choice, only=["codes", "limits", "gamma"])
    assert not failed(findings)
    assert len(findings) == 6


@pytest.mark.parametrize("chunk", [1, 16])
def test_limits_know_the_local_window(chunk):
    choice = find_variant("zeta").with_settings({"local_window": 8, "chunk": chunk, "k": 8})
    assert not failed(audit(choice, only=["limits", "reference"]))


def test_the_definition_on_a_case_worked_by_hand():
    assert define_code([-1.0, 1.0], 2) == 0b0101
    assert define_code([0.0, -0.5], 2) == 0b1001
    keys = [(5, 0), (1, 1), (5, 2), (9, 3)]
    assert define_window(5, keys, 2) == [2, 3]  # r = 3, s = 2 of [1, 0, 2, 3]
    assert define_window(0, keys, 3) == [1, 0, 2]
    assert define_window(7, keys[:1], 3) == [0, -1, -1]


def test_inputs_of_the_audits_stay_clear_of_cell_edges():
    module = Case(find_variant("zeta"), True).module()
    with torch.no_grad():
        for stream, batch in ((0, 2), (0, 3), (1, 2), (2, 2)):
            for coordinates in module.coordinates(tokens(batch=batch, stream=stream)):
                cell = (coordinates + 1) / 2 * 2 ** morton.default_bits(module.config.d_k)
                assert float((cell - cell.round()).abs().min()) > 1e-6


def test_an_error_inside_a_variant_is_a_finding():
    findings = audit(planted("Raises"), causal=True)
    assert all(f.status == "fail" for f in findings)
    assert {f.detail for f in findings} == {"RuntimeError: the planted error"}


def test_a_variant_without_a_definition_is_skipped():
    (finding,) = audit(planted("NoReference"), causal=True, only=["reference"])
    assert (finding.status, finding.detail) == ("skip", "none given")


def test_only_declared_directions_are_audited():
    assert {f.direction for f in audit(planted("CausalOnly"), only=["odd-lengths"])} == {"causal"}
    with pytest.raises(Unsupported, match="causal only"):
        audit(planted("CausalOnly"), causal=False)


def test_misuse_is_one_sentence():
    with pytest.raises(UsageError, match="there is no audit 'causal'; there is causality-value"):
        audit(planted("Clean"), only=["causal"])
    with pytest.raises(UsageError, match="there is no setting 'width'"):
        audit(planted("Clean", width=8))
    with pytest.raises(ZetaBenchError, match="'x' does not import: ModuleNotFoundError"):
        audit(Choice("x", Variant("no_such_module:X", "")))


def test_audits_leave_the_random_state_alone():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    audit(planted("AlwaysDropout"), causal=True, only=["determinism"])
    assert torch.equal(torch.get_rng_state(), state)


def test_infinity_and_nan_count_as_far():
    tally = Tally()
    tally.close(torch.tensor([torch.inf, 1.0]), torch.tensor([torch.inf, 1.0]), 0.0, "same")
    assert not tally.failures
    tally.close(torch.tensor([torch.nan]), torch.tensor([torch.nan]), 1.0, "nan")
    tally.measure(1e9, 1.0, "far")
    assert (tally.worst, len(tally.failures), tally.count) == (torch.inf, 2, 3)


def test_records_say_what_was_found(tmp_path):
    seen = []
    choices = [planted("CausalOnly"), planted("NotHere"), planted("Raises"), Choice("x", Variant("no_such:X", ""))]
    extra = Choice("y", Variant("no_such:Y", "", extra="fla"))
    store = Store(tmp_path)
    records = run_audits([*choices, extra], store, seen.append)
    assert [r.status for r in records] == ["ok", "unsupported", "failed", "failed", "unsupported"]
    assert seen == records == [store.find(r.run_id, "audit") for r in records]
    assert records[1].reason == "it needs a GPU; run it on one."
    assert "causality-value (causal): RuntimeError: the planted error" in records[2].reason
    assert "pip install" in records[4].reason
    assert [f.id for f in findings_of(records[0])] == GENERIC


@pytest.mark.parametrize("name", sorted(catalogue().variants))
def test_registered_variants_pass_or_say_their_defect(name):
    choice = find_variant(name)
    try:
        findings = audit(choice)
    except UsageError as error:
        pytest.skip(str(error))
    assert choice.variant.defect or not failed(findings), "\n".join(f"{f.id}: {f.detail}" for f in failed(findings))


def test_shapes_are_what_the_docstrings_say():
    assert N > 2 * 32
    assert max(LENGTHS) < N
    assert not scattered_mask()[:, 0].any()
