# held-out documents -> lm-eval tasks
rule tasks:
    input:
        given=lambda wc: [ancient(path) for path in study.given("tasks", wc.run)],
    output:
        "results/runs/tasks/{run}/record.json",
    log:
        "results/runs/tasks/{run}/log.txt",
    priority: lambda wc: study.run("tasks", wc.run).cost
    threads: lambda wc: study.run("tasks", wc.run).threads
    params:
        spec=lambda wc: study.run("tasks", wc.run).spec.canonical(),
    shell:
        "python -m llama_bench tasks {params.spec:q} {output} {input.given:q}"
