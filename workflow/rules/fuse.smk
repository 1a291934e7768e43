# several models -> one
rule fuse:
    input:
        given=lambda wc: [ancient(path) for path in study.given("fuse", wc.run)],
    output:
        "results/runs/fuse/{run}/record.json",
    log:
        "results/runs/fuse/{run}/log.txt",
    priority: lambda wc: study.run("fuse", wc.run).cost
    threads: lambda wc: study.run("fuse", wc.run).threads
    params:
        spec=lambda wc: study.run("fuse", wc.run).spec.canonical(),
    shell:
        "python -m llama_bench fuse {params.spec:q} {output} {input.given:q}"
