"""The values of what pipelines are given, checked before a stage works for nothing; no data are opened."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from inspect import signature
from typing import Any

from kfp_bonsai.fine_tune import train
from kfp_bonsai.layer_remove.remove import stacks_asked
from kfp_bonsai.matrix_prune import prune
from kfp_bonsai.pipelines.levels import (
    SHARES,
    check_fit,
    check_layers,
    check_shares,
    compressed,
    parse_levels,
    usual_levels,
    with_fewer_layers,
)
from kfp_bonsai.select_model import select
from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.ranges import SEED, ZERO_OR_MORE, check_ranges
from kfp_bonsai.shared.data.encoding import tokens_of
from kfp_bonsai.shared.inference import int8_form
from kfp_bonsai.shared.kinds.kind import ROW
from kfp_bonsai.shared.kinds.kinds import KINDS
from kfp_bonsai.shared.models import flops
from kfp_bonsai.shared.models.configuration import family_of, positions_of
from kfp_bonsai.shared.models.free_models import task_class
from kfp_bonsai.shared.models.tokens import FEWEST_TOKENS, ODD_TEXTS, check_end
from kfp_bonsai.shared.saved import kept_tokens
from kfp_bonsai.shared.saved.checkpoint import rehearse
from kfp_bonsai.shared.saved.fitted import check_kind
from kfp_bonsai.shared.saved.kept_tokens import WHOLE
from kfp_bonsai.shared.saved.pretrained import Pretrained, blank, read
from kfp_bonsai.shared.training.students import check_tokens
from kfp_bonsai.teacher_outputs import outputs

LONGEST = 512  # tokens of a text
RANGES = {
    "prune_steps": prune.RANGES["steps"],
    "augmentations": outputs.RANGES["augmentations"],
    "unlabelled_rows": outputs.RANGES["unlabelled_rows"],
    "seed": SEED,
    **train.RANGES,
    **select.RANGES,
}


def check_model(model: str, levels: Sequence[Mapping[str, Any]], max_length: int) -> None:
    """Refuse a model that cannot be had, levels and a length that it cannot have, and ready-made models like that.

    Args:
        model: a folder, a hub name or embedded:NAME.
        levels: what parse_levels gives.
        max_length: tokens at which texts are cut; 0 for the longest text.

    Raises:
        BonsaiError: there is no such model, or a late stage would refuse one of these.
    """
    found = read(model)
    positions = positions_of(found.config)
    if max_length > positions:
        raise BonsaiError(
            f"--max-length {max_length}: {model} has {positions} positions: give no more, or 0 for the longest "
            "training text"
        )
    _check_layers(compressed(levels), found.config)
    rehearse(found.outline, found.tokenizer, [[*ODD_TEXTS]], min(LONGEST, positions))
    for level in levels:
        if level["vocabulary"] != WHOLE:
            with _of_level(level):
                kept_tokens.check(found.tokenizer)
        if level["model"]:
            _check_ready_made(level, found, max_length)


def _check_layers(levels: Sequence[Mapping[str, Any]], config: Any, writes: bool = False) -> None:
    stacks = [getattr(config, stack.count) for stack in family_of(config).stacks]
    for level in levels:
        check_layers(level, stacks, writes=writes)
    check_fit(levels, config)


def _check_shares(
    levels: Sequence[Mapping[str, Any]], config: Any, max_length: int, kind: str, surely: bool = False
) -> None:
    head = KINDS[kind].head if kind else ROW
    check_shares(levels, config, min(max_length or LONGEST, positions_of(config)), head, surely)


def levels_of_kind(arguments: Mapping[str, Any], epochs: float = 0.0) -> list[dict[str, Any]]:
    """Return the levels of a run for which none are given: those of its kind of task that its model can have.

    Args:
        arguments: of compress.
        epochs: epochs of distillation, where they are stated.

    Raises:
        BonsaiError: model or data cannot be had, or the model cannot answer such rows, or have any of these levels.
    """
    kind, model = kind_of_rows(arguments), read(arguments["model"])
    if kind:
        _check_head(model, kind)
    config, usual = model.config, usual_levels(kind, epochs)

    def check(level: Mapping[str, Any]) -> None:
        _check_layers([level], config)
        _check_shares([level], config, arguments["max_length"], kind, surely=True)

    stacks = [getattr(config, stack.count) for stack in family_of(config).stacks]
    found: list[dict[str, Any]] = []
    for number, text in enumerate(usual, 1):
        try:
            level = _first_that_fits(parse_levels(with_fewer_layers(text), epochs), check)
            same = [each["label"] for each in found if _what_stays(each, stacks) == _what_stays(level, stacks)]
            if same:
                say(f"note: '{level['label']}' is left out: of {sum(stacks)} layers it leaves what '{same[0]}' does")
            else:
                found.append(level)
        except BonsaiError as error:
            if number == len(usual) and not found:
                raise
            say(f"note: left out, as it was not asked for: {error}")
    return found


def _what_stays(level: Mapping[str, Any], stacks: Sequence[int]) -> tuple:
    return stacks_asked(level["layers"], stacks, writes=False), *(level[key] for key in (*SHARES, "shape"))


def _first_that_fits(levels: Sequence[dict[str, Any]], check: Callable[[Mapping[str, Any]], None]) -> dict[str, Any]:
    """Return the first of some levels that a model can have, or raise what is wrong with the first of all."""
    level, *others = levels
    try:
        check(level)
    except BonsaiError:
        for other in others:
            with suppress(BonsaiError):
                check(other)
                return other
        raise
    return level


def kind_of_rows(arguments: Mapping[str, Any]) -> str:
    """Return the kind of task that a pipeline's data are for, as far as a glance at them tells; they are opened.

    Raises:
        BonsaiError: there are no such data, or no such columns.
    """
    from kfp_bonsai.prepare_data.gather import kind_at_a_glance

    return kind_at_a_glance(**{name: arguments[name] for name in signature(kind_at_a_glance).parameters})


def check_taught(model: str, levels: Sequence[Mapping[str, Any]], max_length: int, kind: str) -> None:
    """Refuse a model that cannot answer rows of this kind, and levels that it cannot have then.

    Args:
        model: a folder, a hub name or embedded:NAME.
        levels: what parse_levels gives.
        max_length: tokens at which texts are cut; 0 for the longest text.
        kind: the kind of task; "" where it takes all rows to tell classes from numbers.

    Raises:
        BonsaiError: the model has no such head; a level costs more than it is to, or less; a ready-made one answers in
            text, or has other tokens where these are what is answered for; or a level that writes none is to have
            fewer tokens.
    """
    baseline = read(model)
    if kind:
        _check_head(baseline, kind)
        _check_layers(compressed(levels), baseline.config, KINDS[kind].writes)
    fewer = [level for level in levels if level["vocabulary"] != WHOLE]
    if fewer and not (kind and KINDS[kind].writes):
        raise BonsaiError(
            f"--level '{fewer[0]['label']}': vocabulary={fewer[0]['vocabulary']} is for models that write, and these "
            "rows have no answers to be written: leave it out, or say that they have, with --kind generation"
        )
    _check_shares(compressed(levels), baseline.config, max_length, kind)
    ready_made = [level for level in levels if level["model"]] if kind else []
    own = tokens_of(baseline.tokenizer) if ready_made else ""
    for level in ready_made:
        with _of_level(level):
            found = read(level["model"])
            check_kind(found, kind)
            if tokens_of(found.tokenizer) != own or positions_of(found.config) < max_length:
                check_tokens(level["model"], kind)


def _check_head(found: Pretrained, kind: str) -> None:
    check_kind(found, kind)
    if KINDS[kind].head != ROW:
        task_class(found.config, KINDS[kind].head)
    if KINDS[kind].writes:
        check_end(found.tokenizer)


@contextmanager
def _of_level(level: Mapping[str, Any]) -> Iterator[None]:
    """Let what is said of a ready-made model name its level."""
    try:
        yield
    except BonsaiError as error:
        reason = str(error).replace("--model ", "model=").replace("correct --model", "correct model=")
        raise type(error)(f"--level '{level['label']}': {reason}") from error


def _check_ready_made(level: Mapping[str, Any], baseline: Pretrained, max_length: int) -> None:
    """Refuse a ready-made model that cannot be had, and say what is odd about it."""
    model, where = level["model"], f"--level '{level['label']}'"
    with _of_level(level):
        found = read(model, weights=True)  # small as it is, it is here then
        positions = positions_of(found.config)
        rehearse(found.outline, found.tokenizer, [[*ODD_TEXTS]], min(LONGEST, positions))
    length = min(max_length or LONGEST, positions, positions_of(baseline.config))
    share = flops.count(blank(found.config)).at(length) / flops.count(blank(baseline.config)).at(length)
    if share >= 1:
        say(f"note: {where}: {model} computes {share:.1f} times what the baseline does: it will save nothing")
    if positions < max_length:
        say(f"note: {where}: {model} has {positions} positions: it reads no more tokens of a text (--max-length)")


def rivals_of(text: str) -> list[dict[str, Any]]:
    """Return ready-made models that are named with commas between, as levels.

    Raises:
        BonsaiError: one cannot be read, or is there twice.
    """
    names = [one.strip() for one in text.split(",") if one.strip()]
    return parse_levels([f"model={one}" for one in names]) if names else []


def check_search(arguments: Mapping[str, Any], whole: bool = True) -> None:
    """Refuse targets of a search that are none, and a space that is unknown.

    Args:
        arguments: of the pipeline, or those of them that are given.
        whole: whether they are all.

    Raises:
        BonsaiError: one is wrong.
    """
    from kfp_bonsai.propose import goals
    from kfp_bonsai.propose.ground import SHAPES

    check_ranges({**goals.RANGES, "distill_epochs": ZERO_OR_MORE}, arguments)
    if "shape" in arguments:
        check_choice("--shape", arguments["shape"], SHAPES)
    if arguments.get("objective"):
        check_choice("--objective", arguments["objective"], goals.OBJECTIVES)
    if whole:
        goals.targets_of(arguments)


def check_within_reach(
    model: str, kind: str, max_emission: float, max_size_mb: float, rivals: bool, edge: bool
) -> None:
    """Refuse limits that no model cut from this one can keep to, as far as its configuration tells.

    What is emitted is known once it is timed; that it is within a factor of the FLOPs is known here. A vocabulary that
    is cut to the task's may take next to nothing: of models that have such a one nothing is said yet.

    Args:
        model: a folder, a hub name or embedded:NAME.
        kind: the kind of task; "" where it is not known yet.
        max_emission: as a share of the baseline's; 0 for no limit.
        max_size_mb: of the weights; 0 for no limit.
        rivals: whether ready-made models are tried too.
        edge: whether models become int8, which emits and takes about a quarter.

    Raises:
        BonsaiError: one is out of reach.
    """
    from kfp_bonsai.shared.models.shapes import layers_of

    found, small = read(model), 0.25 if edge else 1.0
    config, head = found.config, KINDS[kind].head if kind else ROW
    if kind and KINDS[kind].writes and kept_tokens.can(found.tokenizer):
        return
    network = blank(config, head)
    in_layers = sum(one.numel() for _, layer in layers_of(network) for one in layer.parameters())
    rest = 4e-6 * small * (sum(one.numel() for one in network.parameters()) - in_layers)
    hint = "" if edge else ", or for int8 too (--edge)"
    if not rivals and 0 < max_size_mb < 0.9 * rest:
        raise BonsaiError(
            f"--max-size-mb {max_size_mb:g} cannot be met: the embeddings of {model} alone, which stay, take "
            f"{rest:.1f} MB: ask for more, name a ready-made model (--rival){hint}"
        )
    if not rivals and 0 < max_emission / small < 1:
        level = {"label": "", "layers": "1", "emission": max_emission / small, "flops": 1.0, "shape": "free"}
        try:
            check_shares([level], config, head=head)
        except BonsaiError as error:
            if "less than one head" in str(error):
                raise BonsaiError(
                    f"--max-emission {max_emission:g} cannot be met: one head and one block of neurons in one layer of "
                    f"{model} cost more than that: ask for more{hint}"
                ) from error


def check_values(arguments: Mapping[str, Any]) -> None:
    """Refuse values that a late stage would refuse anywhere; nothing is opened, and no package need be here.

    Args:
        arguments: a pipeline's, by their names, or those of them that are given.

    Raises:
        BonsaiError: a value that no stage takes.
    """
    from kfp_bonsai.check_drift.check import WARN, check_on_drift
    from kfp_bonsai.evaluate_emissions.given import AUTO as AUTO_DEVICE
    from kfp_bonsai.evaluate_emissions.given import check_known
    from kfp_bonsai.quantize.quantize import AUTO, check_runtime
    from kfp_bonsai.shared.energy.carbon import intensity_of
    from kfp_bonsai.shared.metrics.noninferiority import check_margin

    intensity_of(arguments.get("country", ""), arguments.get("intensity", 0))
    _check_published(arguments)
    _check_numbers(arguments)
    _check_choices(arguments)
    check_on_drift(arguments.get("on_drift", WARN))
    check_margin(arguments.get("margin", 0))
    check_runtime(arguments.get("runtime", AUTO))
    check_known(arguments.get("device", AUTO_DEVICE))


def _check_published(arguments: Mapping[str, Any]) -> None:
    """Check the form of where the model is published, and of the registry that is told."""
    from kfp_bonsai.package_model.kserve import check_account
    from kfp_bonsai.package_model.register import check_address, check_published
    from kfp_bonsai.shared.storage.store import check_location

    register = arguments.get("register", "")
    check_account(arguments.get("fetch_as", ""))
    if arguments.get("upload"):
        check_location(arguments["upload"], hub=True)
    if register:
        check_address(register)
        check_published(register, arguments.get("upload", ""))


def _check_numbers(arguments: Mapping[str, Any]) -> None:
    """Check the numbers that are given."""
    from kfp_bonsai.evaluate_emissions.given import check_numbers

    def given(*flags: str) -> list[tuple[str, Any]]:
        return [(flag, arguments[flag]) for flag in flags if flag in arguments]

    for flag, value in arguments.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BonsaiError(f"{flag_of(flag)} is {value}: give a number")
    measured = given("pairs", "block_seconds", "batch_size", "precision", "time_budget", "traffic", "embodied")
    check_numbers(**dict(measured))
    check_ranges(RANGES, arguments)
    if 0 < arguments.get("max_length", 0) < FEWEST_TOKENS:
        raise BonsaiError(f"--max-length is {arguments['max_length']}: give 0, or room for a text, such as 64")


def _check_choices(arguments: Mapping[str, Any]) -> None:
    """Check what prepare-data would refuse, as far as it needs no data for that."""
    from kfp_bonsai.prepare_data.asked import check_flags, check_split_by

    def given(*names: str) -> dict[str, Any]:
        return {name: arguments[name] for name in names if name in arguments}

    rows = given("validation_rows", "test_rows")
    check_flags(**rows, **given("kind", "metric", "validation_fraction", "test_fraction", "max_rows", "seed"))
    if arguments.get("edge"):
        int8_form.check_kind(arguments.get("kind", ""), arguments.get("runtime", ""))
    check_split_by(**rows, **given("split_by"))


def fitting(value: Any, kind: type, what: str) -> Any:
    """Return a value of JSON or YAML as an argument has it; JSON and KFP know one kind of numbers.

    Raises:
        BonsaiError: it is of another type.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return value
    if kind is int and number and (isinstance(value, int) or value.is_integer()):
        return int(value)
    if kind in (str, bool, list, dict) and isinstance(value, kind):
        return value
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        dict: 'a JSON object such as {"epochs": 1}',
        list: 'a JSON list such as ["half:layers=1/2", "tiny:layers=1/3"]',
    }
    raise BonsaiError(f"{what} is {json.dumps(value, default=str)}: give {words[kind]}")


def flag_of(name: str) -> str:
    """Return the option of an argument."""
    return f"--{name.replace('_', '-')}"
