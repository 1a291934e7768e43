# one branch of one trunk -> checkpoint and held-out loss
rule train:
    input:
        given=lambda wc: [ancient(path) for path in study.given("train", wc.run)],
        after=lambda wc: [ancient(path) for path in study.after(wc.run)],
    output:
        "results/runs/train/{run}/record.json",
    log:
        "results/runs/train/{run}/log.txt",
    priority: lambda wc: study.run("train", wc.run).cost
    threads: lambda wc: study.threads("train", wc.run, workflow.cores)
    resources:
        launcher=lambda wc: study.launcher("train", wc.run),
    params:
        spec=lambda wc: study.run("train", wc.run).spec.canonical(),
    shell:
        "{resources.launcher} train {params.spec:q} {output} {input.given:q}"
