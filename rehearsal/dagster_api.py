"""The GraphQL requests of the Dagster UI that the rehearsal and the cluster send."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import requests

ASSETS = ("chip_inventory", "chip_embeddings", "embeddings_geoparquet")
LOCATION = {"repositoryLocationName": "clay_assets", "repositoryName": "__repository__"}

FINISHED = {"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"}

LAUNCH = """mutation($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on Error { message }
  }
}"""

BACKFILL = """query($id: String!) {
  partitionBackfillOrError(backfillId: $id) {
    ... on PartitionBackfill { status error { message } }
  }
}"""

STATUSES = """query($key: AssetKeyInput!) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { assetPartitionStatuses { ... on DefaultPartitionStatuses {
      materializedPartitions failedPartitions unmaterializedPartitions materializingPartitions
    } } }
  }
}"""

MATERIALIZATIONS = """query($key: AssetKeyInput!, $partitions: [String!]) {
  assetNodeOrError(assetKey: $key) {
    ... on AssetNode { assetMaterializations(partitions: $partitions) {
      partition runId timestamp
      metadataEntries { label ... on TextMetadataEntry { text } ... on IntMetadataEntry { intValue } }
    } }
  }
}"""

FAILURES = """query($filter: RunsFilter!) {
  runsOrError(filter: $filter) { ... on Runs { results {
    runId
    eventConnection { events {
      __typename
      ... on ExecutionStepFailureEvent {
        error { message errorChain { error { message } } }
        failureMetadata { metadataEntries { label ... on TableMetadataEntry { table { records } } } }
      }
    } }
  } } }
}"""

RUNS = """query($filter: RunsFilter!) {
  runsOrError(filter: $filter) { ... on Runs { results { runId status } } }
}"""

TERMINATE = """mutation($runs: [String!]!) {
  terminateRuns(runIds: $runs) { __typename ... on Error { message } }
}"""

SENSOR = """mutation($selector: SensorSelector!) {
  startSensor(sensorSelector: $selector) { __typename ... on Error { message } }
}"""

TICK = """mutation($selector: ScheduleSelector!, $timestamp: Float) {
  scheduleDryRun(selectorData: $selector, timestamp: $timestamp) {
    __typename
    ... on DryRunInstigationTick { evaluationResult {
      skipReason
      error { message }
      runRequests { runKey tags { key value } }
    } }
    ... on Error { message }
  }
}"""


Json = str | float | Sequence["Json"] | Mapping[str, "Json"]


@dataclass(frozen=True)
class DagsterApi:
    """A running webserver.

    Attributes:
        url: URL of the webserver.
    """

    url: str

    def ask(self, query: str, **variables: Json) -> dict[str, Any]:
        """Send one GraphQL request and return the value of its one field.

        Raises:
            RuntimeError: If Dagster answers with an error.
        """
        response = requests.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=120
        )
        answer = response.json()
        if "data" not in answer or not answer["data"]:
            raise RuntimeError(f"GraphQL: {answer}")
        (field,) = answer["data"].values()
        if not isinstance(field, dict) or "message" in field:
            raise RuntimeError(f"GraphQL: {field}")
        return field

    def dismiss_welcome(self) -> None:
        """Close the welcome dialog of a new installation."""
        requests.post(f"{self.url}/graphql", json={"query": "mutation { setNuxSeen }"}, timeout=60)

    def launch_backfill(self, tiles: Sequence[str], title: str) -> str:
        """Launch a backfill of all three assets, as the UI's dialog does, and return its id."""
        selection: list[Json] = [{"path": [asset]} for asset in ASSETS]
        parameters: Json = {"assetSelection": selection, "partitionNames": list(tiles), "title": title}
        return str(self.ask(LAUNCH, params=parameters)["backfillId"])

    def wait_for_backfill(self, backfill: str, timeout_s: float) -> str:
        """Wait until a backfill has ended and return its status.

        Raises:
            TimeoutError: If it has not ended in time.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = str(self.ask(BACKFILL, id=backfill)["status"])
            if status in FINISHED:
                return status
            time.sleep(1)
        raise TimeoutError(f"backfill {backfill} has not ended within {timeout_s:.0f} s")

    def partition_statuses(self, asset: str) -> Mapping[str, list[str]]:
        """Return the tiles of an asset by status: materialized, failed, unmaterialized, materializing."""
        found = self.ask(STATUSES, key={"path": [asset]})["assetPartitionStatuses"]
        return {name.removesuffix("Partitions"): tiles for name, tiles in found.items()}

    def materializations(self, asset: str, tiles: Sequence[str]) -> list[dict[str, Any]]:
        """Return all materialization events of the tiles of an asset."""
        found = self.ask(MATERIALIZATIONS, key={"path": [asset]}, partitions=list(tiles))
        return list(found["assetMaterializations"])

    def step_errors(self, backfill: str) -> list[str]:
        """Return the error messages of the failed steps of a backfill's runs."""
        errors = [event["error"] for event in self._failed_steps(backfill) if event.get("error")]
        return [
            part["message"]
            for error in errors
            for part in (error, *(link["error"] for link in error["errorChain"]))
        ]

    def failure_reasons(self, backfill: str) -> dict[str, str]:
        """Return the errors of the tiles that failed in a backfill's runs, by tile."""
        reasons: dict[str, str] = {}
        for event in self._failed_steps(backfill):
            for entry in (event.get("failureMetadata") or {}).get("metadataEntries", []):
                if entry["label"] == "failed_tiles" and "table" in entry:
                    rows = [_as_dict(record) for record in entry["table"]["records"]]
                    reasons |= {row["tile"]: row["error"] for row in rows}
        return reasons

    def _failed_steps(self, backfill: str) -> list[dict[str, Any]]:
        runs = self.ask(FAILURES, filter={**_runs_of(backfill), "statuses": ["FAILURE"]})["results"]
        events = [event for run in runs for event in run["eventConnection"]["events"]]
        return [event for event in events if event["__typename"] == "ExecutionStepFailureEvent"]

    def run_statuses(self, backfill: str) -> dict[str, str]:
        """Return the status of each run of a backfill, by run id."""
        runs = self.ask(RUNS, filter=_runs_of(backfill))["results"]
        return {run["runId"]: run["status"] for run in runs}

    def cancel_queued_runs(self) -> int:
        """Cancel the runs that have not started and return their number."""
        runs = [run["runId"] for run in self.ask(RUNS, filter={"statuses": ["QUEUED"]})["results"]]
        if runs:  # Dagster answers an empty list with an error
            self.ask(TERMINATE, runs=runs)
        return len(runs)

    def start_sensor(self, sensor: str) -> None:
        """Switch a sensor on."""
        self.ask(SENSOR, selector={**LOCATION, "sensorName": sensor})

    def schedule_tick(self, schedule: str) -> dict[str, Any]:
        """Evaluate a schedule now without launching runs; return its run requests, or the reason for none."""
        tick = self.ask(TICK, selector={**LOCATION, "scheduleName": schedule}, timestamp=time.time())
        result: dict[str, Any] = tick["evaluationResult"]
        if result["error"]:
            raise RuntimeError(f"the tick failed: {result['error']['message']}")
        return result


def _runs_of(backfill: str) -> dict[str, Json]:
    return {"tags": [{"key": "dagster/backfill", "value": backfill}]}


def _as_dict(record: object) -> dict[str, str]:
    parsed = json.loads(record) if isinstance(record, str) else record
    assert isinstance(parsed, dict)  # noqa: S101 - by Dagster's schema
    return parsed.get("data", parsed)
