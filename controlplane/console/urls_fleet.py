"""Addresses of the fleet, under /ops/: pools, policies, decisions, workers."""

from __future__ import annotations

from django.urls import URLPattern, URLResolver, path

from controlplane.console import (
    decision_page,
    decision_pages,
    emergency,
    fleet_page,
    machines,
    planner,
    planner_actions,
    policy_pages,
    pool_actions,
    pool_page,
    worker_page,
)

urlpatterns: list[URLPattern | URLResolver] = [
    path("fleet/", fleet_page.fleet, name="fleet"),
    path("fleet.csv", fleet_page.fleet_csv, name="fleet_csv"),
    path("fleet/series.json", fleet_page.fleet_series, name="fleet_series"),
    path("fleet/planner/", planner.page, name="planner"),
    path("fleet/planner/savings.csv", planner.savings_csv, name="planner_savings_csv"),
    path("fleet/planner/announce/", planner_actions.announce, name="planner_announce"),
    path("fleet/planner/announced/<uuid:planned_id>/cancel/", planner_actions.cancel, name="planner_cancel"),
    path("fleet/new/", policy_pages.new, name="pool_new"),
    path("fleet/pools/<slug:slug>/", pool_page.pool, name="pool"),
    path("fleet/pools/<slug:slug>/series.json", pool_page.pool_series, name="pool_series"),
    path("fleet/pools/<slug:slug>/decisions.csv", decision_pages.decisions_csv, name="decisions_csv"),
    path("fleet/pools/<slug:slug>/edit/", policy_pages.edit, name="pool_edit"),
    path("fleet/pools/<slug:slug>/policy/", policy_pages.policy, name="pool_policy"),
    path("fleet/pools/<slug:slug>/policy/<int:number>/restore/", policy_pages.restore, name="pool_restore"),
    path("fleet/pools/<slug:slug>/machines/", machines.machines, name="machines"),
    path("fleet/pools/<slug:slug>/machines/new/", machines.new, name="machine_new"),
    path("fleet/pools/<slug:slug>/machines/<int:offer_id>/", machines.edit, name="machine_edit"),
    path("fleet/pools/<slug:slug>/machines/<int:offer_id>/remove/", machines.remove, name="machine_remove"),
    path("fleet/pools/<slug:slug>/machines/<int:offer_id>/move/", machines.move, name="machine_move"),
    path("fleet/pools/<slug:slug>/machines/<int:offer_id>/ask/", machines.ask, name="machine_ask"),
    path("fleet/pools/<slug:slug>/add/", pool_actions.add, name="pool_add"),
    path("fleet/pools/<slug:slug>/maximum/", pool_actions.maximum, name="pool_maximum"),
    path("fleet/pools/<slug:slug>/pause/", pool_actions.pause, name="pool_pause"),
    path("fleet/pools/<slug:slug>/unpause/", pool_actions.unpause, name="pool_unpause"),
    path("fleet/pools/<slug:slug>/drain/", pool_actions.drain, name="pool_drain"),
    path("fleet/pools/<slug:slug>/resume/", pool_actions.resume, name="pool_resume"),
    path("fleet/emergency/", emergency.everywhere, name="emergency"),
    path("fleet/emergency/<uuid:measure_id>/end/", emergency.end, name="emergency_end"),
    path("fleet/pools/<slug:slug>/emergency/", emergency.pool, name="pool_emergency"),
    path("fleet/pools/<slug:slug>/emergency/<slug:kind>/", emergency.take, name="emergency_take"),
    path("fleet/decisions/<int:decision_id>/", decision_page.decision, name="decision"),
    path("fleet/workers/<uuid:worker_id>/", worker_page.worker, name="worker"),
    path("fleet/workers/<uuid:worker_id>/<slug:what>/", worker_page.act, name="worker_act"),
]
