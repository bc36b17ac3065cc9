"""Pools as Deployments of a Kubernetes cluster: docs/kubernetes.md. The official client is imported when a cluster is first asked."""

from fleet.providers.kubernetes.provider import Kubernetes

__all__ = ["Kubernetes"]
