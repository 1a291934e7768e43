# one base on labelled examples -> another checkpoint
rule finetune:
    input:
        given=lambda wc: [ancient(path) for path in study.given("finetune", wc.run)],
    output:
        "results/runs/finetune/{run}/record.json",
    log:
        "results/runs/finetune/{run}/log.txt",
    priority: lambda wc: study.run("finetune", wc.run).cost
    threads: lambda wc: study.threads("finetune", wc.run, workflow.cores)
    params:
        spec=lambda wc: study.run("finetune", wc.run).spec.canonical(),
    shell:
        "python -m llama_bench finetune {params.spec:q} {output} {input.given:q}"
