"""Make the lock of a version: find every part's exact state, resolve the Python union, keep the document once.

`prepare` reads and asks the network, outside any transaction; `keep` is one short write. The same content is the same
lock, whoever makes it, and a version that has it already is not given it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from django.db import transaction
from packaging.requirements import InvalidRequirement

from builds import dependencies, libraries, versions
from builds.findings import ERROR, WARNING, Finding, errors_in, finding
from builds.locking import adopting, base_image, checking, document, formats, kept_freezes, packs, repositories, requirements
from builds.locking.document import Lock as Document
from builds.locking.formats import comfy_pack
from builds.locking.formats.parts import Parts, Written
from builds.locking.requirements import Asked
from builds.locking.resolving import Question, Resolved
from builds.locking.sources import Sources, Target, canonical, comfyui_address
from builds.models import Lock, Version, VersionLock
from controlplane.kernel import audit
from controlplane.kernel.errors import Invalid, NotFound

OPEN = ("ambiguous", "missing")
BELIEVED = timedelta(days=3 * 365)


@dataclass(frozen=True)
class Prepared:
    """A document that may be kept, its id, and what there is to say about it (warnings and information)."""

    document: Document
    sha256: str
    findings: list[Finding] = field(default_factory=list)


def make(*, version: Version, sources: Sources | None = None, actor: str, now: datetime, **wishes: Any) -> Lock:
    """The lock of `version`, made or found. `wishes` are those of `prepare`."""
    prepared = prepare(version=version, sources=sources, **wishes)
    return keep(version=version, prepared=prepared, actor=actor, now=now)


def prepare(
    *,
    version: Version,
    sources: Sources | None = None,
    target: Target | None = None,
    report: Mapping[str, Any] | None = None,
    upgrade: bool = False,
    constraints: Iterable[str] = (),
) -> Prepared:
    """What the lock of `version` would be. `report` is a dependency report as JSON (made here when left out).

    Commits of an earlier lock of the same workflow are kept where nothing else is asked, unless `upgrade`.
    Raises Invalid `dependencies_unresolved`, `requirements_refused`, `lock_malformed`, Conflict `requirements_conflict`,
    and the errors of `packs`, `repositories`, `registry`, `resolving`.
    """
    sources, target = sources or Sources.of_settings(), target or Target.of_settings()
    target = replace(target, constraints=(*target.constraints, *constraints))
    report = report if report is not None else dependencies.of_version(version).as_json()
    classes = _classes(report)
    before = None if upgrade else earlier(version)
    comfyui, tree = _comfyui(sources, target, before)
    entries = {one["key"]: one for one in (before or {}).get("packs", ())}
    located = [packs.locate(one, sources=sources, before=entries.get(one.get("key"))) for one in _wanted(report)]
    packs.refuse_same_folder(one.entry for one in located)
    core, found = packs.needs(tree, asker="comfyui", sources=sources)
    found += [one for each in located for one in each.findings]
    _refuse(found)
    newest, doubted = _newest(tree.committed_at, located)
    found += doubted
    asked = tuple(one for each in located for one in each.asked)
    question = Question((*core, *_agent(target)), asked, tree.committed_at, newest, target)
    resolved = kept_freezes.resolve(question, sources=sources, fresh=upgrade)
    base, troubles = base_image.pinned(target.base_image, before=(before or {}).get("base_image"), offline=sources.offline)
    models, unsure = _models(report)
    made = checking.check(_document(target, resolved, comfyui, [one.entry for one in located], models, classes, base))
    return Prepared(made, document.sha256(made), [*found, *resolved.findings, *troubles, *unsure, *_against(report, comfyui)])


def prepare_from(
    *, version: Version, parts: Parts, sources: Sources | None = None, target: Target | None = None, report: Mapping[str, Any] | None = None, **wishes: bool
) -> Prepared:
    """What the lock of `version` would be by a lock file that was read (`formats.read`); `wishes` are those of `adopting.adopt`."""
    report = report if report is not None else dependencies.of_version(version).as_json()
    if parts.lock is not None:
        lacking = sorted(set(_classes(report)) - set(parts.lock["classes"]))
        found = list(parts.findings)
        if lacking:
            message = f"The lock was made for other nodes; it does not promise {', '.join(lacking)[:600]}."
            raise Invalid("lock_lacks_classes", message, "Lock the version anew: manage.py lock.", details={"classes": lacking[:200]})
        return Prepared(parts.lock, document.sha256(parts.lock), found)
    adopted = adopting.adopt(parts, report=report, target=target or Target.of_settings(), **wishes)
    prepared = prepare(version=version, sources=sources, target=adopted.target, report=adopted.report)
    return replace(prepared, findings=[*adopted.findings, *prepared.findings])


def export(*, version: Version, name: str) -> Written:
    """The lock of `version` as a file of the format `name`, or as a "cpack" with its graphs. Raises NotFound `not_locked`, `format_unknown`."""
    held = of(version)
    if held is None:
        raise NotFound(
            "not_locked", f"{version.workflow.slug} v{version.number} has no lock yet.", f"Make it: manage.py lock {version.workflow.slug}@{version.number}."
        )
    if name == "cpack":
        return comfy_pack.archive(document.normal(held.lock.document), graph=version.graph, ui_graph=version.ui_graph)
    return formats.write(name, held.lock.document)


def keep(*, version: Version, prepared: Prepared, actor: str, reason: str = "", now: datetime) -> Lock:
    """Store a lock and give it to the version, once; audited when it is new to the version."""
    with transaction.atomic():
        lock, _ = Lock.objects.get_or_create(sha256=prepared.sha256, defaults={"document": prepared.document, "created_at": now, "created_by": actor[:120]})
        before = VersionLock.objects.filter(version=version).first()
        given, new = VersionLock.objects.get_or_create(
            version=version, lock=lock, defaults={"made_at": now, "made_by": actor[:120], "findings": prepared.findings}
        )
        again = not new and before is not None and before.lock_id != lock.sha256
        if again or (not new and given.findings != prepared.findings):
            # The newest one counts, so a version that returns to an earlier lock gets it anew.
            given.findings = prepared.findings
            given.made_at, given.made_by = (now, actor[:120]) if again else (given.made_at, given.made_by)
            given.save(update_fields=["findings", "made_at", "made_by"])
        if new or again:
            audit.record(
                actor=actor,
                action="lock.make",
                object_type="version",
                object_id=str(version.pk),
                before={"lock": before.lock_id if before else None},
                after={"lock": lock.sha256, "workflow": version.workflow.slug, "number": version.number, "comfyui": prepared.document["comfyui"]["commit"]},
                reason=reason[:500],
                now=now,
            )
            # Models that the lock lets workers fetch no longer keep the version from running.
            versions.recheck(version=version, library=libraries.current())
    return lock


def of(version: Version) -> VersionLock | None:
    """The lock that counts for `version`."""
    return VersionLock.objects.filter(version=version).select_related("lock").first()


def earlier(version: Version) -> Document | None:
    """The lock this version has, else that of its nearest ancestor that has one, else the newest of the workflow."""
    one: Version | None = version
    for _ in range(200):
        if one is None:
            break
        held = of(one)
        if held is not None:
            found: Document = held.lock.document
            return found
        one = one.parent
    newest = VersionLock.objects.filter(version__workflow_id=version.workflow_id).select_related("lock").first()
    return newest.lock.document if newest else None


def _comfyui(sources: Sources, target: Target, before: Document | None) -> tuple[dict[str, str], repositories.Tree]:
    repository = canonical(target.repository)
    held = (before or {}).get("comfyui") or {}
    ref = target.ref or (str(held.get("commit") or "") if held.get("repository") == repository else "")
    tree = repositories.open_tree(comfyui_address(sources, repository), ref, sources=sources, repository=repository)
    if tree.read("requirements.txt") is None:
        message = f"{repository} at {tree.commit[:12]} has no requirements.txt, so it is no ComfyUI."
        raise Invalid("not_comfyui", message, "Check BUILD_COMFYUI_SOURCE and BUILD_COMFYUI_REF.")
    return {"repository": repository, "commit": tree.commit, "version": requirements.version_in(tree.read("pyproject.toml"))}, tree


def _classes(report: Mapping[str, Any]) -> list[str]:
    listed = [one for one in report.get("classes") or () if one.get("status") != "ui_only" and not one.get("asleep")]
    still = [str(one["class"]) for one in listed if one.get("status") in OPEN]
    if still:
        shown = ", ".join(name[:80] for name in still[:10]) + (f" and {len(still) - 10} more" if len(still) > 10 else "")
        message = f"Nothing says for sure which pack brings {shown}."
        raise Invalid(
            "dependencies_unresolved", message, "Choose a pack for each on the page Dependencies, or with manage.py pin.", details={"classes": still[:200]}
        )
    return sorted({str(one["class"]) for one in listed})


def _wanted(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The packs that bring a class that runs."""
    asleep = {str(one["class"]) for one in report.get("classes") or () if one.get("asleep")}
    return [one for one in report.get("packs") or () if not one.get("classes") or set(one["classes"]) - asleep]


def _newest(comfyui_at: datetime, located: list[packs.Located]) -> tuple[datetime, list[Finding]]:
    """The newest believable date of all parts. Dates are what authors wrote; one far ahead would bind the freeze to nothing."""
    believed, found = [comfyui_at], []
    for one in located:
        if one.at is not None and one.at <= comfyui_at + BELIEVED:
            believed.append(one.at.astimezone(UTC))
        elif one.at is not None:
            message = f"{one.entry['key'][:200]} is dated {one.at:%Y-%m-%d}, years after ComfyUI's commit; that date does not count."
            found.append(finding(WARNING, "pack_date_doubted", message, "If it is right, lock a newer ComfyUI."))
    return max(believed), found


def _agent(target: Target) -> list[Asked]:
    try:
        return requirements.plain(target.agent, asker="agent", file="settings")
    except InvalidRequirement as error:
        raise Invalid("setting_malformed", f"BUILD_AGENT_REQUIREMENTS holds no requirement: {error}.", "Correct it.") from error


def _refuse(found: list[Finding]) -> None:
    errors = errors_in(found)
    if errors:
        more = f" And {len(errors) - 1} more." if len(errors) > 1 else ""
        raise Invalid("requirements_refused", errors[0]["message"] + more, errors[0]["suggestion"], details={"findings": found[:100]})


def _models(report: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Finding]]:
    models: dict[tuple[str, str], dict[str, Any]] = {}
    found: list[Finding] = []
    for one in report.get("models") or ():
        if one.get("asleep"):
            continue
        directory, filename = str(one.get("directory") or ""), str(one.get("name") or "").replace("\\", "/")
        where = {"node": str(one.get("node") or ""), "field": str(one.get("input") or "")}
        if trouble := checking.path_trouble(f"{directory}/{filename}"):
            found.append(finding(ERROR, "model_path_refused", f"The model {filename[:120]!r} {trouble}.", "Rename the file.", **where))
            continue
        sha256 = str(one.get("sha256") or "").lower()
        url = str(one.get("url") or "")
        if not document.SHA256.fullmatch(sha256):
            sha256 = ""
            message = f"Nobody knows the hash of the model {filename[:120]}, so it is not locked; workers use what lies under that name."
            found.append(finding(WARNING, "model_without_hash", message, "Give its sha256 and address on the page Dependencies.", **where))
        size = one.get("size_bytes")
        models[(directory, filename)] = {
            "directory": directory,
            "filename": filename,
            "sha256": sha256,
            "size_bytes": size if isinstance(size, int) and not isinstance(size, bool) and size >= 0 else None,
            "urls": [url] if url and checking.is_address(url) else [],
            "licence": str(one.get("licence") or "")[:120],
        }
    _refuse(found)
    return list(models.values()), found


def _against(report: Mapping[str, Any], comfyui: Mapping[str, str]) -> list[Finding]:
    """Core classes were looked up in the node library of some ComfyUI; say so when that is another version."""
    seen = str((report.get("comfyui") or {}).get("version") or "")
    if not seen or not comfyui["version"] or seen.lstrip("v") == comfyui["version"]:
        return []
    message = f"The node classes were looked up for ComfyUI {seen[:40]}, and {comfyui['version']} is locked."
    return [finding(WARNING, "comfyui_differs", message, "Import the object_info of the locked version, or set BUILD_COMFYUI_REF.")]


def _document(
    target: Target,
    resolved: Resolved,
    comfyui: Mapping[str, str],
    entries: list[dict[str, Any]],
    models: list[dict[str, Any]],
    classes: list[str],
    base: Mapping[str, str],
) -> Document:
    return {
        "platform": {"os": "linux", "arch": target.arch},
        "python": {"version": target.python, "as_of": resolved.as_of.isoformat() if resolved.as_of else ""},
        "base_image": base,
        "comfyui": comfyui,
        "packs": entries,
        "python_packages": resolved.packages,
        "constraints": resolved.constraints,
        "torch": {"version": resolved.torch, "backend": target.torch_backend or backend(resolved.packages)},
        "models": models,
        "classes": classes,
    }


def backend(freeze: Iterable[Mapping[str, Any]]) -> str:
    """What torch of this freeze computes on: "cpu", "cu128", …; "" without torch."""
    names = {str(one["name"]): str(one["version"]) for one in freeze}
    if "torch" not in names:
        return ""
    local = names["torch"].partition("+")[2]
    runtime = next((version for name, version in names.items() if name.startswith(("nvidia-cuda-runtime", "cuda-toolkit"))), "")
    return local or ("cu" + "".join(runtime.split(".")[:2]) if runtime else "cpu")
