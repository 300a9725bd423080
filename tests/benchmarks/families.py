"""Do the families compress alike, and does the order of the stages matter? Trained, pruned and measured here.

    python tests/benchmarks/families.py --work runs/families [--json families.json]     # about an hour on 2 cores

Pretrained GPT-2, OPT and T5 cannot be had everywhere, and pretrained models of four families were never trained on the
same text anyway. So every family starts equal: a random model of 6 layers (T5: 6 in the encoder, 3 in the decoder),
width 256, with the embeddings of the demo's MiniLM (its first 256 principal components), trained by distillation from
the fine-tuned MiniLM on the movie reviews and unlabelled texts. That is the family's baseline; it is then compressed at
the three levels by the stages as they are, from its own outputs. (MiniLM itself, pretrained, is stronger: the demo.)

Part 2 cuts GPT-2's matrices at the same widths as if they knew no heads: the strongest columns of the fused query, key
and value matrix, wherever they belong. Part 3 compares, on one family over several seeds, layers then matrices with
matrices then layers, and distillation with plain fine-tuning, at equal FLOPs and equal training cost. Cost is counted
in forward passes of the baseline: 3 for a trained row of a whole model, 1 for each row that the teacher computes.
"""

import argparse
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from arguments import json_file, same_arguments, write_json
from trained import accuracy, figures, made
from transformers import CONFIG_MAPPING, AutoTokenizer, set_seed

from kfp_bonsai.distill.distill import distill, suggested_rate
from kfp_bonsai.fine_tune.train import fine_tune
from kfp_bonsai.layer_remove.remove import layer_remove
from kfp_bonsai.matrix_prune.prune import matrix_prune
from kfp_bonsai.prepare_data.prepare import prepare_data
from kfp_bonsai.shared.data import tasks
from kfp_bonsai.shared.energy import energy
from kfp_bonsai.shared.models import answers, flops
from kfp_bonsai.shared.models.families import FAMILIES
from kfp_bonsai.shared.models.free_models import task_class
from kfp_bonsai.shared.models.tokens import settle
from kfp_bonsai.shared.saved import checkpoint, records
from kfp_bonsai.shared.training import transfer
from kfp_bonsai.teacher_outputs.outputs import teacher_outputs

WIDTHS = {"hidden": 256, "heads": 4, "head_dim": 64, "ffn": 1024, "embedding": 256}
LAYERS, DECODER_LAYERS = 6, 3
HIDDEN_WEIGHT = 1  # a causal model cannot have the hidden states of one that sees both sides
LEVELS = {"2/3 layers": ("2/3", 1.0), "1/3 layers": ("1/3", 1.0), "1/3 layers + matrix pruning": ("1/3", 0.1)}
SPLITS = ("train", "validation", "test", "unlabelled")


def main() -> None:
    """Run what is asked for; folders that are there already are not made again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/families"), help="folder for the models; resumed from")
    parser.add_argument("--families", nargs="+", default=["bert", "gpt2", "opt", "t5"], help="what to train")
    parser.add_argument("--order-family", default="bert", help="the family of part 3; '' leaves it out")
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds part 3 has (3)")
    parser.add_argument("--start-epochs", type=float, default=2, help="passes over the texts for a baseline")
    parser.add_argument("--epochs", type=float, default=1, help="passes of distillation for a level")
    parser.add_argument("--unlabelled-rows", type=int, default=4000)
    parser.add_argument("--json", type=json_file, help="file to write the figures to")
    given = parser.parse_args()
    if given.order_family not in ("", *given.families):
        parser.error(f"--order-family {given.order_family} is none of --families: add it, or give ''")
    given.work.mkdir(parents=True, exist_ok=True)
    own = ("start_epochs", "epochs", "unlabelled_rows")
    same_arguments(given.work / "arguments.json", {name: getattr(given, name) for name in own})

    data = prepared(given.work / "data", given.unlabelled_rows)
    teacher = made(given.work / "minilm", lambda to: tuned(data, to))
    taught = made(given.work / "minilm-outputs", lambda to: outputs(teacher, data, to))
    results: dict[str, Any] = {
        "versions": records.versions(),
        "start_epochs": given.start_epochs,
        "epochs": given.epochs,
        "teacher": accuracy(teacher, data["test"]),
        "families": {},
    }
    print(f"MiniLM, fine-tuned: accuracy {results['teacher']:.4f}", flush=True)
    for family in given.families:
        results["families"][family] = compressed(family, given, data, teacher, taught)
        print(table(family, results["families"][family]), flush=True)
        if family == "gpt2":
            results["naive"] = naive(given.work / family, given.epochs, data)
            print(naive_table(results["naive"]), flush=True)
        write_json(given.json, results)
    if given.order_family:
        results["order"] = order(given.work / given.order_family, given, data)
        print(order_table(results["order"]), flush=True)
        write_json(given.json, results)


def prepared(folder: Path, unlabelled_rows: int) -> dict[str, Path]:
    """Return the splits of the movie reviews; unlabelled texts are of other domains."""
    paths = {name: folder / f"{name}.parquet" for name in SPLITS}
    if not folder.exists():
        folder.mkdir()
        more = ",".join(f"embedded:{name}" for name in ("amazon-reviews", "tweets", "news"))
        prepare_data(
            "embedded:movie-reviews", *paths.values(), unlabelled_data=more, test_rows=2000, validation_rows=500
        )
        task = tasks.read_task(paths["unlabelled"])
        print(f"{task.rows} unlabelled texts, of which {unlabelled_rows} are used")
    (folder / "unlabelled_rows").write_text(str(unlabelled_rows))
    return paths


def unlabelled_rows(data: dict[str, Path]) -> int:
    """Return how many unlabelled texts are used."""
    return int((data["train"].parent / "unlabelled_rows").read_text())


def tuned(data: dict[str, Path], to: Path) -> None:
    """Fine-tune MiniLM."""
    fine_tune("embedded:minilm", data["train"], data["validation"], to, epochs=2, freeze_embeddings=True)


def outputs(model: Path, data: dict[str, Path], to: Path) -> None:
    """Ask a model about all texts."""
    teacher_outputs(model, data["train"], data["unlabelled"], to, unlabelled_rows=unlabelled_rows(data))


def started(family: str, teacher: Path, to: Path) -> None:
    """Write a random model of a family with the teacher's tokenizer and embeddings, and a record like a stage's."""
    set_seed(0)
    network, _ = checkpoint.load(teacher)
    record = records.read_record(teacher)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    known, names = network.get_input_embeddings().weight.detach(), FAMILIES[family].config
    values = {names[key]: value for key, value in WIDTHS.items() if key in names}
    values |= {stack.count: DECODER_LAYERS if stack.answers else LAYERS for stack in FAMILIES[family].stacks}
    ends = {"bos_token_id": tokenizer.cls_token_id, "eos_token_id": tokenizer.sep_token_id}
    config = CONFIG_MAPPING[family](
        vocab_size=len(known), max_position_embeddings=512, pad_token_id=tokenizer.pad_token_id, **ends, **values
    )
    settle(tokenizer, config)
    if FAMILIES[family].answers_in_text:
        tokenizer.eos_token = tokenizer.sep_token
        config.decoder_start_token_id = tokenizer.pad_token_id
        config.label_tokens = answers.label_tokens(tokenizer, record["task"]["labels"])
    model = task_class(config)(config)
    _, _, directions = torch.pca_lowrank(known, q=WIDTHS["hidden"], center=False)
    own = model.get_input_embeddings().weight
    with torch.no_grad():
        narrowed = known @ directions
        own.copy_(narrowed * (own.std() / narrowed.std()))
    with energy.track() as meter:
        pass
    arguments = {"family": family, **WIDTHS, "layers": LAYERS}
    checkpoint_record = records.extend_record(
        {**record, "lineage": []}, stage="start", arguments=arguments, reading=meter.reading
    )
    to.mkdir()
    checkpoint.save(model, tokenizer, to, checkpoint_record)


def learnt(
    model: Path, taught: Path, data: dict[str, Path], to: Path, epochs: float, seed: int = 0, **more: Any
) -> None:
    """Distill."""
    distill(model, taught, data["validation"], to, epochs=epochs, hidden_weight=HIDDEN_WEIGHT, seed=seed, **more)


def compressed(family: str, given: Any, data: dict[str, Path], teacher: Path, taught: Path) -> dict[str, Any]:
    """Train a family's baseline and its levels; return accuracy, relative accuracy and FLOPs of each."""
    work = given.work / family
    work.mkdir(exist_ok=True)
    start = made(work / "start", lambda to: started(family, teacher, to))
    rate = {"learning_rate": 5e-4, "batch_size": 32}
    base = made(work / "base", lambda to: learnt(start, taught, data, to, given.start_epochs, **rate))
    own = made(work / "outputs", lambda to: outputs(base, data, to))
    found = {"baseline": figures(base, base, data["test"])}
    for label, (layers, share) in LEVELS.items():
        name = label.replace("/", "-").replace(" ", "_")
        short = made(
            work / f"{name}.short", lambda to, keep=layers: layer_remove(base, data["validation"], to, keep=keep)
        )
        pruned = made(
            work / f"{name}.pruned",
            lambda to, model=short, share=share: matrix_prune(model, own, to, flops=share, hidden_weight=HIDDEN_WEIGHT),
        )
        small = made(work / name, lambda to, model=pruned: learnt(model, own, data, to, given.epochs))
        found[label] = figures(small, base, data["test"])
    return found


def naive(work: Path, epochs: float, data: dict[str, Path]) -> dict[str, Any]:
    """Cut 1/3 of GPT-2's layers to a tenth of the FLOPs by heads, and across them; return both, cut and distilled."""
    label = "1-3_layers_+_matrix_pruning"
    short, whole = work / f"{label}.short", work / "base"
    own = work / "outputs"
    widths = {"heads": 1, "ffn": 288}
    ours = made(work / "by-heads.cut", lambda to: matrix_prune(short, own, to, **widths, hidden_weight=HIDDEN_WEIGHT))
    across = made(work / "across-heads.cut", lambda to: cut_across(short, ours, to))
    found = {}
    for name, model in (("by heads", ours), ("across heads", across)):
        after = made(work / name.replace(" ", "-"), lambda to, model=model: learnt(model, own, data, to, epochs))
        found[name] = {"cut": figures(model, whole, data["test"]), "distilled": figures(after, whole, data["test"])}
    return found


def cut_across(short: Path, like: Path, to: Path) -> None:
    """Keep the columns of the fused matrix, and the neurons, with the greatest norm, whatever head they belong to."""
    network, tokenizer = checkpoint.load(short)
    target, _ = checkpoint.load(like)
    with torch.no_grad():
        for old, new in zip(network.transformer.h, target.transformer.h, strict=True):
            strongest = old.attn.c_attn.weight.norm(dim=0).topk(new.attn.c_attn.nf).indices.sort().values
            new.attn.c_attn.weight.copy_(old.attn.c_attn.weight[:, strongest])
            new.attn.c_attn.bias.copy_(old.attn.c_attn.bias[strongest])
            read = old.attn.c_proj.weight.norm(dim=1).topk(new.attn.c_proj.nx).indices.sort().values
            new.attn.c_proj.weight.copy_(old.attn.c_proj.weight[read])
            neurons = old.mlp.c_fc.weight.norm(dim=0).topk(new.mlp.c_fc.nf).indices.sort().values
            new.mlp.c_fc.weight.copy_(old.mlp.c_fc.weight[:, neurons])
            new.mlp.c_fc.bias.copy_(old.mlp.c_fc.bias[neurons])
            new.mlp.c_proj.weight.copy_(old.mlp.c_proj.weight[neurons])
            for path in ("ln_1", "ln_2", "attn.c_proj", "mlp.c_proj"):
                new.get_submodule(path).bias.copy_(old.get_submodule(path).bias)
            for path in ("ln_1", "ln_2"):
                new.get_submodule(path).weight.copy_(old.get_submodule(path).weight)
        for path in ("transformer.wte", "transformer.wpe", "transformer.ln_f", "score"):
            target.get_submodule(path).load_state_dict(network.get_submodule(path).state_dict())
    to.mkdir()
    checkpoint.save(target, tokenizer, to, records.read_record(like))


def order(work: Path, given: Any, data: dict[str, Path]) -> dict[str, Any]:
    """Compare orders of the stages, and ways of training, at equal widths and training cost, over seeds."""
    base, own = work / "base", work / "outputs"
    record = records.read_record(base)
    taught = len(transfer.open_set(own))
    labelled = tasks.read_task(data["train"]).rows
    steps, widths, keep = 150, {"heads": 1, "ffn": 288}, "1/3"
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(given.seeds):
            room = Path(scratch) / str(seed)
            room.mkdir()
            prune = {"steps": steps, "seed": seed, "hidden_weight": HIDDEN_WEIGHT, **widths}
            # layers, then matrices
            layer_remove(base, data["validation"], room / "short", keep=keep)
            matrix_prune(room / "short", own, room / "pruned", **prune)
            learnt(room / "pruned", own, data, room / "a", given.epochs, seed)
            size = records.read_record(room / "pruned")
            share = flops.ratio(size, record, record["max_length"])
            third = flops.ratio(records.read_record(room / "short"), record, record["max_length"])
            masked = steps * 32
            cost = 3 * masked * third + 3 * given.epochs * taught * share
            note(found, "layers, then matrices; distilled", room / "a", base, data, cost + taught)
            # matrices, then layers: its masks train the whole model, which leaves less for distillation
            matrix_prune(base, own, room / "thin", **prune)
            layer_remove(room / "thin", data["validation"], room / "thin-short", keep=keep)
            left = (cost - 3 * masked) / (3 * taught * share)
            learnt(room / "thin-short", own, data, room / "b", max(left, 0.05), seed)
            spent = 3 * masked + 3 * max(left, 0.05) * taught * share
            note(found, "matrices, then layers; distilled", room / "b", base, data, spent + taught)
            # plain fine-tuning gets what the teacher's outputs cost as well
            epochs = (cost + taught - 3 * masked * third) / (3 * labelled * share)
            fine_tuned(room / "pruned", data, room / "c", epochs, suggested_rate(size, record), seed)
            note(found, "layers, then matrices; fine-tuned", room / "c", base, data, cost + taught)
    for one in found.values():
        spread = statistics.stdev(one["relative_accuracy"]) if given.seeds > 1 else 0.0
        one |= {"mean": statistics.mean(one["relative_accuracy"]), "spread": spread}
    return found


def note(found: dict, name: str, model: Path, base: Path, data: dict[str, Path], cost: float) -> None:
    """Add one seed's figures; cost is in forward passes of the baseline."""
    one = found.setdefault(name, {"relative_accuracy": [], "flops_ratio": [], "cost": []})
    figure = figures(model, base, data["test"])
    one["relative_accuracy"].append(figure["relative_accuracy"])
    one["flops_ratio"].append(figure["flops_ratio"])
    one["cost"].append(cost)
    print(f"  {name}: {figure['relative_accuracy']:.2%} at {figure['flops_ratio']:.1%} FLOPs", flush=True)


def fine_tuned(model: Path, data: dict[str, Path], to: Path, epochs: float, rate: float, seed: int) -> None:
    """Train a pruned model on the labels alone at the rate that distillation uses, and keep the best epoch."""
    options = {"epochs": epochs, "learning_rate": rate, "batch_size": 64, "seed": seed}
    fine_tune(str(model), data["train"], data["validation"], to, **options)


def table(family: str, found: dict[str, Any]) -> str:
    """Return a family's levels as lines."""
    lines = [f"{family:12} {'accuracy':>9} {'relative':>9} {'FLOPs':>7}"]
    for label, one in found.items():
        lines.append(f"  {label:30} {one['accuracy']:9.4f} {one['relative_accuracy']:9.2%} {one['flops_ratio']:7.1%}")
    return "\n".join(lines)


def naive_table(found: dict[str, Any]) -> str:
    """Return GPT-2's two cuts as lines."""
    lines = ["gpt2, 1/3 layers, matrices cut    at once  distilled   FLOPs"]
    for name, one in found.items():
        cut, after, share = *(one[key]["relative_accuracy"] for key in ("cut", "distilled")), one["cut"]["flops_ratio"]
        lines.append(f"  {name:30} {cut:8.2%} {after:10.2%} {share:7.1%}")
    return "\n".join(lines)


def order_table(found: dict[str, Any]) -> str:
    """Return the orders as lines: the mean over seeds, its spread, FLOPs, and the training cost."""
    lines = [f"{'order':38} {'relative':>9} {'spread':>7} {'FLOPs':>7} {'cost':>9}"]
    for name, one in found.items():
        cost, share = statistics.mean(one["cost"]), statistics.mean(one["flops_ratio"])
        lines.append(f"  {name:36} {one['mean']:9.2%} {one['spread']:7.2%} {share:7.1%} {cost:9.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
