"""Remove rows and columns of the weight matrices, gradually, while training against the teacher."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from kfp_bonsai.shared.core.errors import BonsaiError, check_choice
from kfp_bonsai.shared.core.files import copy_folder, new_folder
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.core.ranges import ABOVE_ZERO, ONE_OR_MORE, ZERO_OR_MORE, check_ranges
from kfp_bonsai.shared.kinds.kinds import kind_in
from kfp_bonsai.shared.saved.checkpoint import load, save
from kfp_bonsai.shared.saved.kept_tokens import VOCABULARIES, WHOLE
from kfp_bonsai.shared.saved.records import extend_record, read_record
from kfp_bonsai.shared.training.teacher import check_teacher

SHAPES = ("free", "stock")
DEVICES = ("auto", "cpu", "cuda")
RANGES = {
    "heads": ZERO_OR_MORE,
    "ffn": ZERO_OR_MORE,
    "steps": ONE_OR_MORE,
    "learning_rate": ABOVE_ZERO,
    "batch_size": ONE_OR_MORE,
}


def matrix_prune(
    model: Path,
    teacher_outputs: Path,
    output: Path,
    *,
    flops: float = 0.1,
    emission: float = 1.0,
    shape: str = "free",
    heads: int = 0,
    ffn: int = 0,
    steps: int = 200,
    learning_rate: float = 2e-4,
    batch_size: int = 32,
    temperature: float = 2,
    hidden_weight: float = 10,
    device: str = "auto",
    vocabulary: str = "whole",
    costs: str = "",
    seed: int = 0,
) -> dict:
    """Prune heads, feed-forward neurons and (stock shapes) the hidden width to a share of the FLOPs or the emission.

    Units are scored by the gradient of the distillation loss with respect to a mask on them (arXiv 1906.10771,
    section 3), masked away along a cubic schedule (arXiv 1710.01878, section 3) in the first three quarters of the
    steps, and then cut out of the matrices. Train the result with distill.

    Args:
        model: The model to prune, usually after layer-remove.
        teacher_outputs: The transfer set from teacher-outputs.
        output: Folder to write the pruned model to.
        flops: FLOPs to reach, as a share of the baseline's; 1 leaves the matrices as they are.
        emission: Energy of an inference to reach, as a share of the baseline's, instead of the FLOPs; 1 leaves it to
            them. It is predicted by a table of what a few shapes took on the device, of texts of the task's mean
            length, and answers of theirs where the model writes, in batches as evaluate-emissions has them.
        shape: free (the hidden width stays, each layer has its own heads and neurons, and the last computes only the
            token that a classifier reads; loads after `import kfp_bonsai`) or stock (uniform, narrower; loads in plain
            transformers).
        heads: Heads of every layer, to state the widths instead of the FLOPs.
        ffn: Neurons of every layer, to state the widths instead of the FLOPs.
        steps: Training steps while pruning.
        learning_rate: AdamW's highest learning rate.
        batch_size: Rows a step.
        temperature: Softens both models' logits.
        hidden_weight: Weight of the hidden states' error; the logits weigh 1.
        device: Where emission is measured, for the table: cpu, cuda, or auto (a GPU if there is one). It must be here.
        vocabulary: Tokens that FLOPs and emission are reckoned with: whole, or task, if distill is to leave a model
            that writes only these; where that alone is enough, the matrices are left as they are.
        costs: A table of costs (JSON) that was timed already, as searches write it, instead of one timed here.
        seed: Seed of the order of rows.

    Returns:
        The share of the baseline's FLOPs reached (by emission, of its energy too, as predicted), heads and neurons a
        layer, hidden width, seconds and joules.

    Raises:
        BonsaiError: the target cannot be reached, or is above what the model costs already; there is no such device.

    Example:
        bonsai matrix-prune --model short --teacher-outputs transfer --flops 0.1 --output pruned
        bonsai matrix-prune --model short --teacher-outputs transfer --emission 0.1 --device cpu --output pruned
        bonsai matrix-prune --model short --teacher-outputs transfer --shape stock --heads 8 --ffn 512 --output pruned
    """
    record, teacher = read_record(model), read_record(teacher_outputs)
    check_teacher(model, record, teacher_outputs, teacher, temperature=temperature, hidden_weight=hidden_weight)
    _check(record, flops, emission, shape)
    check_choice("--device", device, DEVICES)
    check_choice("--vocabulary", vocabulary, VOCABULARIES)
    check_ranges(RANGES, locals())
    if flops == emission == 1 and not heads and not ffn:
        return _pass_through(model, output, record, teacher)

    from kfp_bonsai.matrix_prune.prices import (
        by_flops,
        by_table,
        predicted,
        table_for,
        tokens_needed,
        with_fewer_tokens,
    )
    from kfp_bonsai.shared.energy import energy
    from kfp_bonsai.shared.inference.cost_table import read_costs
    from kfp_bonsai.shared.models.costs import Costs, Request
    from kfp_bonsai.shared.training import attempts, distillation, soft_answers, students, trainer, transfer

    writes = kind_in(record["task"]).writes
    if writes:
        soft_answers.check_temperature(temperature)
    arguments = {
        "flops": flops,
        "emission": emission,
        "shape": shape,
        "heads": heads,
        "ffn": ffn,
        "steps": steps,
        "learning_rate": learning_rate,
        "batch_size": batch_size,
        "temperature": temperature,
        "hidden_weight": hidden_weight,
        "seed": seed,
    }
    given = [record["sha256"], record.get("level"), transfer.sha256_of(teacher_outputs)]
    with (
        attempts.attempt("matrix-prune", output, [given, arguments, device, vocabulary, costs]) as attempt,
        new_folder(output) as folder,
    ):
        with energy.track() as meter:
            attempt.meter = meter
            network, tokenizer = load(model)
            network.to(trainer.device())  # its masks are made where it is
            data = students.open_for(teacher_outputs, model, network.config, tokenizer, record)
            length, written = _mean_lengths(data)
            fewer = tokens_needed(tokenizer, data) if vocabulary != WHOLE else 0
            by_emission = emission < 1 and not (heads or ffn)
            table = None
            if by_emission and costs:
                table = read_costs(Path(costs))
            elif by_emission:  # an attempt after this one goes by the same table
                asked = Request(length, written if writes else 0, fewer)
                timed = attempt.once("costs", lambda: asdict(table_for(network, teacher, shape, asked, device)))
                table = Costs(**timed)
            if table:
                prices = by_table(table, network, emission)
            else:
                counted = with_fewer_tokens(record, network, fewer) if fewer else record
                prices = by_flops(network, counted, teacher, length, flops, written)
            if fewer and prices.now <= prices.target and not (heads or ffn):
                share = prices.now / prices.whole
                what = "emission, as predicted" if table else "FLOPs"
                say(f"matrix-prune  fewer tokens alone leave {share:.3f} of the baseline's {what}: matrices stay whole")
                smaller = network
            else:
                pruning = _Pruning(network, prices, shape, heads, ffn)
                arguments["learning_rate"] = distillation.distill_into(
                    network,
                    data,
                    trainer.Recipe(
                        "matrix-prune", steps * batch_size / len(data), learning_rate, batch_size, seed=seed
                    ),
                    attempt,
                    tokenizer.pad_token_id,
                    temperature=temperature,
                    hidden_weight=hidden_weight,
                    label_weight=0,
                    callbacks=[pruning.callback()],
                    carried=pruning.masks,
                )
                smaller = pruning.cut()
        cost = attempt.total(meter.reading)
        made = extend_record(record, stage="matrix-prune", arguments=arguments, reading=cost, validation={})
        if table:
            made["predicted_emission"] = predicted(table, smaller)
        made = save(smaller, tokenizer, folder, made)
    return {**_summary(made, teacher), "seconds": cost.seconds, "joules": cost.joules}


class _Pruning:
    """Masks, the schedule that closes them, and the cut at the end."""

    def __init__(self, network: Any, prices: Any, shape: str, heads: int, ffn: int) -> None:
        from kfp_bonsai.matrix_prune import budget, masks
        from kfp_bonsai.matrix_prune.prices import spent
        from kfp_bonsai.shared.models import one_token, surgery
        from kfp_bonsai.shared.models.shapes import Shape, shape_of, stacks_of

        self.network = network
        self.shape = shape_of(network)
        self.same_heads = shape == "stock" and any(stack.shared_bias for stack, _ in stacks_of(network))
        self.free = shape == "free" and one_token.can(type(network), network.config)
        self.costs = prices.units(self.shape.hidden, self.free)
        self.before, rest = spent(self.shape, self.costs), prices.rest(self.shape.hidden, self.free)
        self.after = prices.target - rest
        self.uniform: Shape | None = None
        if heads or ffn:
            self.uniform = self._stated(heads, ffn, shape)
        elif shape == "stock":
            self.uniform = budget.uniform(self.shape, prices, surgery.unreachable_width(network.config))
        if self.uniform is not None:
            self.after = spent(self.uniform, prices.units(self.uniform.hidden, self.free))
        too_much = self.after > self.before if heads or ffn else prices.target > prices.now
        if too_much:
            raise BonsaiError(
                f"{prices.asked}: the model costs {prices.now / prices.whole:.3f} of the baseline: ask for less"
            )
        if self.after < budget.least(self.costs) and self.uniform is None:
            raise BonsaiError(prices.too_little(budget.least(self.costs) + rest, budget.STEP))
        self.masks = masks.Masks(
            network, with_hidden=self.uniform is not None and self.uniform.hidden < self.shape.hidden
        )

    def _stated(self, heads: int, ffn: int, shape: str) -> Any:
        from kfp_bonsai.matrix_prune.budget import alike
        from kfp_bonsai.shared.models.shapes import STOCK
        from kfp_bonsai.shared.models.surgery import unreachable_width

        now = self.shape.layers[0]
        heads, ffn, group = heads or now.heads, ffn or now.ffn, self.shape.group
        if heads > now.heads or ffn > now.ffn:
            raise BonsaiError(f"--heads and --ffn must be at most {now.heads} and {now.ffn}, what the model has")
        if heads % group:
            raise BonsaiError(f"--heads {heads}: {group} heads share one key-value head, so give a multiple of {group}")
        hidden = heads * self.shape.head_dim if shape == "stock" and self.shape.tied else self.shape.hidden
        if hidden == unreachable_width(self.network.config):
            raise BonsaiError(
                f"--heads {heads}: a stock model's hidden width would be {hidden}, that of its embeddings, where "
                "transformers builds no projection: give another number, or --shape free"
            )
        found = alike(self.shape, heads, ffn, hidden)
        if shape == "stock" and found.kind != STOCK:
            raise BonsaiError(
                f"--heads {heads}: a stock {self.network.config.model_type} model has heads whose number divides its "
                f"hidden width of {hidden}: give another number, or --shape free"
            )
        return found

    def keep(self, progress: float) -> dict[str, Any]:
        """Return what stays when `progress` (0 to 1) of the schedule has passed."""
        from kfp_bonsai.matrix_prune.budget import allot

        open_share = (1 - progress) ** 3
        if self.uniform is None:
            target = self.after + (self.before - self.after) * open_share
            return allot(self.masks.scores, self.costs, target)
        kept = {}
        for name, scores in self._scores().items():
            kind, _, index = name.partition(".")
            layers = self.uniform.layers
            goal = self.uniform.hidden if kind == "hidden" else self.uniform.units(layers[int(index)])[kind]
            count = round(goal + (len(scores) - goal) * open_share)
            kept[name] = scores.topk(count).indices.sort().values
        return kept

    def _scores(self) -> dict[str, Any]:
        """Return the scores; where the layers of a stock model share one bias table, the sum over them for heads."""
        scores = dict(self.masks.scores)
        if not self.same_heads:
            return scores
        start = 0
        for count in self.shape.stacks:
            names = [f"heads.{index}" for index in range(start, start + count)]
            together = sum(scores[name] for name in names)
            scores |= dict.fromkeys(names, together)
            start += count
        return scores

    def callback(self) -> Any:
        """Return the Trainer's callback that scores at every step and closes masks every few."""
        from transformers import TrainerCallback

        pruning = self

        class Callback(TrainerCallback):
            def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                pruning.masks.observe()

            def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
                warm, end = 0.1 * state.max_steps, 0.75 * state.max_steps
                if state.global_step % 5 == 0 and warm <= state.global_step:
                    for name, kept in pruning.keep(min(1.0, (state.global_step - warm) / (end - warm))).items():
                        pruning.masks.set(name, kept)

        return Callback()

    def cut(self) -> Any:
        """Return the network with what is masked cut out of its matrices."""
        from kfp_bonsai.shared.models import surgery

        kept = self.keep(1.0)
        self.masks.remove()
        hidden = kept.pop("hidden", None)
        layers: list[dict[str, Any]] = [{} for _ in self.shape.layers]
        for name, units in kept.items():
            layers[int(name.partition(".")[2])][name.partition(".")[0]] = units
        return surgery.cut(self.network, layers, hidden, free=self.free)


def _mean_lengths(data: Any) -> tuple[float, float]:
    """Return the mean tokens of the labelled rows, which the FLOPs are asked of; other text may be longer.

    With them come the mean tokens that are written, 1 where none are.
    """
    import numpy as np

    from kfp_bonsai.shared.training.answer_batches import READ
    from kfp_bonsai.shared.training.transfer import NO_LABEL

    known = np.array([bool(np.any(one != NO_LABEL)) for one in data.labels])
    known = known if known.any() else ~known
    lengths, written = np.asarray(data.lengths), np.ones(len(data))
    if kind_in(data.record["task"]).writes:
        written = np.array([len(one) for one in data.labels])
        lengths = lengths if READ in data.inputs else lengths - written
    return float(lengths[known].mean()), float(written[known].mean())


def _check(record: dict, flops: float, emission: float, shape: str) -> None:
    check_choice("--shape", shape, SHAPES)
    for name, share, what in (("flops", flops, "FLOPs"), ("emission", emission, "emission")):
        if not 0 < share <= 1:
            raise BonsaiError(f"--{name} is {share}: give a share of the baseline's {what} above 0 and at most 1")
    if record["shape"]["kind"] == "free" and shape == "stock":
        raise BonsaiError("a model of free shape cannot become stock: start from a model with uniform layers")


def _pass_through(model: Path, output: Path, record: dict, teacher: dict) -> dict:
    """Hand the model on as it is: a level without matrix pruning."""
    with new_folder(output) as folder:
        copy_folder(Path(model), folder)
    return {**_summary(record, teacher), "seconds": 0.0, "joules": 0.0}


def _summary(record: dict, teacher: dict) -> dict:
    from kfp_bonsai.shared.models.flops import ratio

    layers, predicted = record["shape"]["layers"], record.get("predicted_emission")
    return {
        "flops_ratio": ratio(record, teacher, record["max_length"]),
        **({"predicted_emission": predicted["share"]} if predicted else {}),
        "hidden": record["shape"]["hidden"],
        "heads": ",".join(str(one["heads"]) for one in layers),
        "ffn": ",".join(str(one["ffn"]) for one in layers),
    }
