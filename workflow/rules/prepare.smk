# documents -> split, tokenizer, token files
rule prepare:
    input:
        given=lambda wc: [ancient(path) for path in study.given("prepare", wc.run)],
    output:
        "results/runs/prepare/{run}/record.json",
    log:
        "results/runs/prepare/{run}/log.txt",
    priority: lambda wc: study.run("prepare", wc.run).cost
    threads: lambda wc: study.run("prepare", wc.run).threads
    params:
        spec=lambda wc: study.run("prepare", wc.run).spec.canonical(),
    shell:
        "python -m llama_bench prepare {params.spec:q} {output} {input.given:q}"
