"""Addresses of workflows and jobs, under /ops/."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from controlplane.console import branch_actions, builds, dependencies, importing, job, jobs, lock, smoke, versions, workflow_run, workflows

urlpatterns: list[URLPattern | URLResolver] = [
    path("workflows/", workflows.listing, name="workflows"),
    path("workflows/import/", importing.page, name="workflow_import"),
    path("workflows/<slug:slug>/", workflows.overview, name="workflow"),
    path("workflows/<slug:slug>/api/", workflow_run.page, name="workflow_api"),
    path("workflows/<slug:slug>/api/snippets/", workflow_run.code, name="workflow_snippets"),
    path("workflows/<slug:slug>/versions/", versions.log, name="workflow_versions"),
    path("workflows/<slug:slug>/diff/", versions.compare, name="workflow_diff"),
    path("workflows/<slug:slug>/branches/", branch_actions.create, name="workflow_branch_create"),
    path("workflows/<slug:slug>/branches/delete/", branch_actions.delete, name="workflow_branch_delete"),
    path("workflows/<slug:slug>/restore/", branch_actions.restore, name="workflow_restore"),
    path("workflows/<slug:slug>/merge/", branch_actions.merge, name="workflow_merge"),
    path("workflows/<slug:slug>/versions/<int:number>/graph.json", workflows.version_graph, name="workflow_graph"),
    path("workflows/<slug:slug>/promote/", workflows.promote, name="workflow_promote"),
    path("workflows/<slug:slug>/jobs/", workflows.job_list, name="workflow_jobs"),
    path("workflows/<slug:slug>/dependencies/", dependencies.page, name="workflow_dependencies"),
    path("workflows/<slug:slug>/dependencies/choose/", dependencies.choose, name="workflow_dependencies_choose"),
    path("workflows/<slug:slug>/dependencies/unpin/", dependencies.unpin, name="workflow_dependencies_unpin"),
    path("workflows/<slug:slug>/dependencies/describe/", dependencies.describe, name="workflow_dependencies_describe"),
    path("workflows/<slug:slug>/builds/", builds.listing, name="workflow_builds"),
    path("builds/<uuid:build_id>/", builds.page, name="build"),
    path("builds/<uuid:build_id>/lines.json", builds.lines, name="build_lines"),
    path("builds/<uuid:build_id>/log.txt", builds.log, name="build_log"),
    path("builds/<uuid:build_id>/Dockerfile", builds.dockerfile, name="build_dockerfile"),
    path("builds/<uuid:build_id>/sbom.json", builds.sbom, name="build_sbom"),
    path("builds/<uuid:build_id>/cancel/", builds.cancel, name="build_cancel"),
    path("workflows/<slug:slug>/lock/", lock.page, name="workflow_lock"),
    path("workflows/<slug:slug>/versions/<int:number>/lock/<slug:name>", lock.download, name="workflow_lock_file"),
    path("workflows/<slug:slug>/settings/", workflows.settings, name="workflow_settings"),
    path("workflows/<slug:slug>/smoke/", smoke.workflow, name="workflow_smoke"),
    path("smoke/", smoke.matrix, name="smoke"),
    path("smoke/run/", smoke.run, name="smoke_run"),
    path("smoke/<slug:slug>/v<int:number>/", smoke.version, name="smoke_version"),
    path("jobs/", jobs.listing, name="jobs"),
    path("jobs/export.csv", jobs.export, name="jobs_csv"),
    path("jobs/<uuid:job_id>/", job.page, name="job"),
    path("jobs/<uuid:job_id>/inputs/", job.inputs, name="job_inputs"),
    path("jobs/<uuid:job_id>/cancel/", job.cancel, name="job_cancel"),
    path("jobs/<uuid:job_id>/retry/", job.retry, name="job_retry"),
    path("jobs/<uuid:job_id>/outputs/<uuid:output_id>", job.output, name="job_output"),
]
