# held-out documents, or labelled rows -> train, validation and a test task
rule examples:
    input:
        given=lambda wc: [ancient(path) for path in study.given("examples", wc.run)],
    output:
        "results/runs/examples/{run}/record.json",
    log:
        "results/runs/examples/{run}/log.txt",
    priority: 1e30  # before any training: what is wrong with labelled data is told in seconds
    threads: lambda wc: study.run("examples", wc.run).threads
    params:
        spec=lambda wc: study.run("examples", wc.run).spec.canonical(),
    shell:
        "python -m llama_bench examples {params.spec:q} {output} {input.given:q}"
