"""A pretrained model made to fit a task: with a head for it, and the classes in the data's order."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch

from kfp_bonsai.shared.core.errors import BonsaiError
from kfp_bonsai.shared.core.progress import say
from kfp_bonsai.shared.kinds.kind import ANY, NUMBER, ONE, Kind
from kfp_bonsai.shared.kinds.kinds import KINDS, kind_of
from kfp_bonsai.shared.kinds.task import Task
from kfp_bonsai.shared.models import answers, tokens
from kfp_bonsai.shared.models.configuration import check_depths, family_of
from kfp_bonsai.shared.models.free_models import task_class
from kfp_bonsai.shared.models.shapes import last_matrix
from kfp_bonsai.shared.saved import pretrained

PROBLEMS = {ONE: "single_label_classification", ANY: "multi_label_classification", NUMBER: "regression"}


def settle(source: pretrained.Pretrained, task: Task) -> Kind:
    """Settle a pretrained model's configuration and tokenizer for a task, and return the task's kind.

    Raises:
        BonsaiError: the model cannot do it.
    """
    config, tokenizer = source.config, source.tokenizer
    kind = kind_of(task)
    check_kind(source, task.kind)
    if kind.writes:
        task_class(config, kind.head)  # whether there is one
        tokens.settle_writing(tokenizer, config, mark=not task.setting)
        if hasattr(config, "label_tokens"):
            del config.label_tokens
        config.use_cache = False  # while it learns; how it writes is its generation_config's
        return kind
    outputs = kind.outputs(task)
    if len(task.columns) == 2:
        tokens.separate(tokenizer, config)
    if family_of(config).answers_in_text:
        config.label_tokens = answers.label_tokens(tokenizer, task.labels)
    else:
        config.num_labels, config.use_cache = len(outputs), False
        config.problem_type = PROBLEMS[kind.says]
    config.id2label = dict(enumerate(outputs))
    config.label2id = {name: index for index, name in enumerate(outputs)}
    return kind


def fit(source: pretrained.Pretrained, task: Task, stage: str) -> tuple[Any, Any, bool]:
    """Load a pretrained body with a head for the task, its tokenizer, and whether the head, or part of it, is new.

    Args:
        source: the pretrained model.
        task: what it is to answer.
        stage: who says what is done.

    Raises:
        BonsaiError: the model can have no such head, or lacks what it writes with.
    """
    config, before = source.config, dict(source.config.id2label)
    kind = settle(source, task)
    loaded = pretrained.load(source.folder, config, kind.head)
    if kind.writes and loaded.new:
        raise BonsaiError(
            f"{source.folder} lacks {loaded.new[0]}, with which the model would write: give a whole model, saved by "
            "AutoModelForCausalLM or AutoModelForSeq2SeqLM"
        )
    if not (kind.writes or kind.is_number or family_of(config).answers_in_text):
        _settle_classes(loaded.network, before, kind.outputs(task), loaded.new, stage)
    tokens.make_room(source.tokenizer, loaded.network)
    return loaded.network, source.tokenizer, bool(loaded.new)


def check_kind(source: pretrained.Pretrained, kind: str) -> None:
    """Refuse a model that answers in text for what is neither a class nor a text, or has too deep a decoder to write.

    Raises:
        BonsaiError: it is one.
    """
    asked = KINDS[kind]
    if family_of(source.config).answers_in_text and not (asked.is_one_class or asked.writes):
        raise BonsaiError(
            f"{source.folder} answers in text ({source.config.model_type}), which cannot be {asked.answer} here: "
            f"use a model with a head of its own for {kind}"
        )
    if asked.writes:
        stacks = [getattr(source.config, stack.count) for stack in family_of(source.config).stacks]
        check_depths(stacks, str(source.folder))


def _settle_classes(
    network: Any, before: Mapping[int, str], labels: Sequence[str], new: Collection[str], stage: str
) -> None:
    """Let row i of the last matrix be that of label i: reordered, or anew where the model knew other classes.

    Args:
        network: a classifier with as many classes as labels.
        before: the classes' names as the model was saved; those that transformers makes up (LABEL_0) say nothing.
        labels: the data's names.
        new: names of the parameters that the model was saved without.
        stage: who says what is done.
    """
    last = last_matrix(network)
    if any(parameter is last.weight for name, parameter in network.named_parameters() if name in new):
        return
    known = [str(before.get(index, "")).casefold() for index in range(len(labels))]
    wanted = [label.casefold() for label in labels]
    if known == wanted or known == [f"label_{index}" for index in range(len(labels))]:
        return
    with torch.no_grad():
        if sorted(known) == sorted(wanted):
            order = [known.index(label) for label in wanted]
            last.weight.copy_(last.weight[order].clone())
            if last.bias is not None:
                last.bias.copy_(last.bias[order].clone())
            say(f"{stage}  the model's classes are put into the data's order ({', '.join(labels)})")
        else:
            last.weight.normal_(0.0, getattr(network.config, "initializer_range", None) or 0.02)
            if last.bias is not None:
                last.bias.zero_()
            say(f"{stage}  the model was made for other classes ({', '.join(map(str, before.values()))}): a new head")
