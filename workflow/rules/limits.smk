# this device in one precision -> the rates it can reach; timed, so it runs alone
rule limits:
    input:
        given=lambda wc: [ancient(path) for path in study.given("limits", wc.run)],
    output:
        "results/runs/limits/{run}/record.json",
    log:
        "results/runs/limits/{run}/log.txt",
    priority: lambda wc: study.run("limits", wc.run).cost
    threads: lambda wc: workflow.cores
    params:
        spec=lambda wc: study.run("limits", wc.run).spec.canonical(),
    shell:
        "python -m llama_bench limits {params.spec:q} {output} {input.given:q}"
