"""The manifests of conf/kubernetes, as far as one can tell without a cluster: their form, and what they promise."""

import re
import subprocess

import yaml
from prometheus import CONF, promtool

KUBERNETES = CONF / "kubernetes"
# Between the end of a drain and the kill.
SPARE_SECONDS = 5
# file: (kind, least, most, what it goes by)
AUTOSCALERS = {
    "hpa-deployment.yaml": ("Deployment", 2, 10, {"cpu": 70, "mcp_requests_per_second": "100"}),
    "hpa-statefulset.yaml": ("StatefulSet", 3, 10, {"cpu": 70, "memory": 80}),
}


def check(work, binary):
    wrong = [*gateway(work, binary), *autoscalers(), *adapter(work), *scrape(work)]
    return not wrong, "; ".join(wrong) or "the gateway's configuration is good, a drain has its time, the metric is one"


def objects(name):
    return {one["kind"]: one for one in yaml.safe_load_all((KUBERNETES / name).read_text())}


def gateway(work, binary):
    found = objects("gateway.yaml")
    spec = found["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    text = found["ConfigMap"]["data"]["tidegate.yaml"]
    config = yaml.safe_load(text)
    namespaces = {one["metadata"]["namespace"] for one in found.values()}
    if namespaces != {"mcp-system"}:
        yield f"namespaces {namespaces}"
    drain = int(config["drain_timeout"].removesuffix("s"))
    needed = container["lifecycle"]["preStop"]["sleep"]["seconds"] + drain + SPARE_SECONDS
    if spec["terminationGracePeriodSeconds"] < needed:
        yield f"{needed} s are needed to leave"
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    bound = {"mcp": config["listeners"][0]["bind"], "metrics": config["admin"]["bind"]}
    if {name: f"0.0.0.0:{port}" for name, port in ports.items()} != bound:
        yield f"ports {ports}, but {bound}"
    probes = [container[kind]["httpGet"] for kind in ("livenessProbe", "readinessProbe")]
    if probes != [{"path": "/health", "port": ports["mcp"]}, {"path": "/ready", "port": ports["mcp"]}]:
        yield f"probes {probes}"
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [found["Service"]["spec"]["selector"], found["Deployment"]["spec"]["selector"]["matchLabels"], found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]]
    if any(selector.items() - labels.items() for selector in selectors):
        yield "a selector misses the pods"
    yield from understood(work, binary, text, spec)


def understood(work, binary, text, spec):
    """What Tidegate says of the configuration, with a key where the secret would be."""
    key, state = work.file("session.key"), work.file("state")
    key.write_text("0123456789abcdef" * 4 + "\n")
    key.chmod(next(volume["secret"]["defaultMode"] for volume in spec["volumes"] if "secret" in volume))
    state.mkdir()
    config = work.file("kubernetes.yaml")
    config.write_text(text.replace("/keys/session.key", str(key)).replace("/state", str(state)))
    done = subprocess.run([binary, "-t", "-c", config], capture_output=True, text=True, check=False, timeout=20)
    if done.returncode:
        yield f"tidegate -t: {done.stderr.strip()[-300:]}"


def autoscalers():
    for name, (kind, least, most, targets) in AUTOSCALERS.items():
        scaler = objects(name)["HorizontalPodAutoscaler"]
        spec, goes_by = scaler["spec"], {}
        for metric in spec["metrics"]:
            if metric["type"] == "Resource":
                goes_by[metric["resource"]["name"]] = metric["resource"]["target"]["averageUtilization"]
            else:
                goes_by[metric["pods"]["metric"]["name"]] = metric["pods"]["target"]["averageValue"]
        got = (spec["scaleTargetRef"]["kind"], spec["minReplicas"], spec["maxReplicas"], goes_by)
        if scaler["apiVersion"] != "autoscaling/v2" or got != (kind, least, most, targets):
            yield f"{name}: {got}"
        pods = spec["behavior"]["scaleDown"]["policies"]
        grace = objects("gateway.yaml")["Deployment"]["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]
        if any(policy["value"] != 1 or policy["periodSeconds"] < grace for policy in pods):
            yield f"{name}: the next one leaves before the last has drained"


def adapter(work):
    """The rule makes the metric that the autoscaler goes by, out of a query that Prometheus understands."""
    (rule,) = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
    if rule["name"]["as"] not in AUTOSCALERS["hpa-deployment.yaml"][3]:
        yield f"no autoscaler goes by {rule['name']}"
    series = re.match(r"\w+", rule["seriesQuery"])[0]
    filled = {"<<.Series>>": series, "<<.LabelMatchers>>": 'namespace="mcp-system",pod=~"a|b"', "<<.GroupBy>>": "pod"}
    query = rule["metricsQuery"]
    for name, text in filled.items():
        query = query.replace(name, text)
    file = work.file("adapter.yml")
    file.write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": [{"record": "r", "expr": query}]}]}))
    status, said = promtool("check", "rules", str(file))
    if status or "<<" in query:
        yield f"{query}: {said}"


def scrape(work):
    """Debian's promtool knows no service discovery of Kubernetes: everything but that is checked."""
    config = yaml.safe_load((KUBERNETES / "prometheus-scrape.yml").read_text())
    for job in config["scrape_configs"]:
        if not job.pop("kubernetes_sd_configs", None):
            yield f"{job['job_name']} looks for no pods"
    file = work.file("scrape.yml")
    file.write_text(yaml.safe_dump(config))
    status, said = promtool("check", "config", str(file))
    if status:
        yield said
