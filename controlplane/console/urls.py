"""Addresses of the console, under /ops/."""

from __future__ import annotations

from django.urls import include, path

from controlplane.console import audit, components, customer_actions, customers, keys, overview, search, session

app_name = "ops"
urlpatterns = [
    path("", overview.overview, name="overview"),
    path("series.json", overview.series, name="overview_series"),
    path("login/", session.sign_in, name="login"),
    path("logout/", session.sign_out, name="logout"),
    path("search/", search.search, name="search"),
    path("customers/", customers.customers, name="customers"),
    path("customers.csv", customers.customers_csv, name="customers_csv"),
    path("customers/new/", customer_actions.new, name="customer_new"),
    path("customers/<slug:slug>/", customers.customer, name="customer"),
    path("customers/<slug:slug>/series.json", customers.customer_series, name="customer_series"),
    path("customers/<slug:slug>/usage.csv", customers.usage_csv, name="usage_csv"),
    path("customers/<slug:slug>/plan/", customer_actions.plan, name="customer_plan"),
    path("customers/<slug:slug>/suspend/", customer_actions.suspend, name="customer_suspend"),
    path("customers/<slug:slug>/reopen/", customer_actions.reopen, name="customer_reopen"),
    path("customers/<slug:slug>/keys/new/", keys.issue, name="key_new"),
    path("keys/<uuid:key_id>/rotate/", keys.rotate, name="key_rotate"),
    path("keys/<uuid:key_id>/revoke/", keys.revoke, name="key_revoke"),
    path("audit/", audit.audit, name="audit"),
    path("audit.csv", audit.audit_csv, name="audit_csv"),
    path("_components/", components.components, name="components"),
    path("", include("controlplane.console.urls_fleet")),
    path("", include("controlplane.console.urls_work")),
]
