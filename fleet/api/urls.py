"""Addresses of jobs, files and quotes under /v1/."""

from django.urls import path

from fleet.api import files, generate, jobs, outputs, quotes

urlpatterns = [
    path("workflows/<str:slug>/jobs", jobs.WorkflowJobs.as_view(), name="api-workflow-jobs"),
    path("generate", generate.Generate.as_view(), name="api-generate"),
    path("jobs", jobs.Jobs.as_view(), name="api-jobs"),
    path("jobs/<str:job>", jobs.OneJob.as_view(), name="api-job"),
    path("jobs/<str:job>/cancel", jobs.Cancel.as_view(), name="api-job-cancel"),
    path("jobs/<str:job>/events", jobs.Events.as_view(), name="api-job-events"),
    path("jobs/<str:job>/outputs/<str:index>/<str:name>", outputs.OutputBytes.as_view(), name="api-output"),
    path("files", files.Files.as_view(), name="api-files"),
    path("files/<str:file>", files.OneFile.as_view(), name="api-file"),
    path("quotes", quotes.Quotes.as_view(), name="api-quotes"),
    path("quotes/<str:quote>", quotes.OneQuote.as_view(), name="api-quote"),
    path("quotes/<str:quote>/announce", quotes.Announce.as_view(), name="api-quote-announce"),
]
