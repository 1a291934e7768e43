# one shape on this device -> speed and memory; timed, so it runs alone
rule probe:
    input:
        given=lambda wc: [ancient(path) for path in study.given("probe", wc.run)],
    output:
        "results/runs/probe/{run}/record.json",
    log:
        "results/runs/probe/{run}/log.txt",
    priority: lambda wc: study.run("probe", wc.run).cost
    threads: lambda wc: workflow.cores
    params:
        spec=lambda wc: study.run("probe", wc.run).spec.canonical(),
    shell:
        "python -m llama_bench probe {params.spec:q} {output} {input.given:q}"
