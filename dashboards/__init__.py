"""What people look at: Grafana dashboards built from code, the alert rules, and the files that tell Grafana and Prometheus.

    python -m dashboards.build             write generated/*.json
    python -m dashboards.build --check     fail when the committed JSON is not what the code says

`generated/`, `alerts/`, `grafana/` and `prometheus.yml` are also shipped in the wheel; `logsvc dashboards export DIR` writes
them out for people to use.
"""
