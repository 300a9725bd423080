"""report as a Kubeflow Pipelines component."""

from kfp.dsl import HTML, Artifact, ClassificationMetrics, Input, Markdown, Metrics, Output, component

from kfp_bonsai.images import CPU


@component(base_image=CPU, install_kfp_package=False)
def report(
    measurement: Input[Artifact],
    selection: Input[Artifact],
    html: Output[HTML],
    markdown: Output[Markdown],
    results: Output[Artifact],
    figures: Output[Artifact],
    metrics: Output[Metrics],
    classification: Output[ClassificationMetrics],
    edge_measurement: Input[Artifact] = None,  # type: ignore[assignment]  # kfp calls an Optional[...] as a class
    search: Input[Artifact] = None,  # type: ignore[assignment]
    title: str = "",
    command: str = "",
):
    """Write the report as HTML, Markdown, figures and results.json."""
    given = dict(locals())

    import json
    from pathlib import Path

    from kfp_bonsai.report.report import report as stage
    from kfp_bonsai.shared.core.scalars import log_classes, log_numbers, storable
    from kfp_bonsai.shared.core.signatures import chosen

    result = stage(
        Path(measurement.path),
        Path(selection.path),
        Path(html.path),
        Path(markdown.path),
        Path(results.path),
        Path(figures.path),
        edge_measurement=edge_measurement.path if edge_measurement else "",
        search=search.path if search else "",
        **chosen(stage, given),
    )
    results.metadata.update(storable(result))
    log_numbers(result, metrics)
    log_classes(json.loads(Path(results.path).read_text(encoding="utf-8")), classification)


@component(base_image=CPU, install_kfp_package=False)
def study_report(
    results: Input[list[Artifact]],
    cells: list,
    page: Output[Artifact],
    html: Output[HTML],
    title: str = "",
):
    """Write study.json of the cells' results, and the study's page."""
    from pathlib import Path

    from kfp_bonsai.report.study_gathered import report_study as stage
    from kfp_bonsai.shared.core.scalars import storable

    result = stage([Path(one.path) for one in results], cells, Path(page.path), Path(html.path), title=title)
    page.metadata.update(storable(result))
