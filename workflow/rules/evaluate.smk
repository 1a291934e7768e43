# one model on one suite -> scores
rule evaluate:
    input:
        given=lambda wc: [ancient(path) for path in study.given("evaluate", wc.run)],
    output:
        "results/runs/evaluate/{run}/record.json",
    log:
        "results/runs/evaluate/{run}/log.txt",
    priority: lambda wc: study.run("evaluate", wc.run).cost
    threads: lambda wc: study.threads("evaluate", wc.run, workflow.cores)
    resources:
        launcher=lambda wc: study.launcher("evaluate", wc.run),
    params:
        spec=lambda wc: study.run("evaluate", wc.run).spec.canonical(),
        # (what is made of `threads` is no reason to run again)
        then=lambda wc, threads: study.then(wc.run),
    shell:
        "{resources.launcher} evaluate {params.spec:q} {output} {input.given:q} {params.then}"
