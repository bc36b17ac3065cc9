"""Every address under /v1/. Composition only."""

from django.urls import include, path

from controlplane.api import docs, workflows

urlpatterns = [
    path("openapi.json", docs.openapi, name="api-openapi"),
    path("docs/", docs.Docs.as_view(), name="api-docs"),
    path("workflows", workflows.Workflows.as_view(), name="api-workflows"),
    path("workflows/<str:slug>", workflows.OneWorkflow.as_view(), name="api-workflow"),
    path("workflows/<str:slug>/schema", workflows.WorkflowSchema.as_view(), name="api-workflow-schema"),
    path("workflows/<str:slug>/openapi.json", workflows.WorkflowOpenApi.as_view(), name="api-workflow-openapi"),
    path("", include("fleet.api.urls")),
    path("", include("billing.api_urls")),
]
