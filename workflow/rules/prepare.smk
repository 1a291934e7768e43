# documents -> split, tokenizer, token files
rule prepare:
    input:
        lambda wc: [ancient(path) for path in study.run("prepare", wc.run).inputs],
    output:
        "results/runs/prepare/{run}/record.json",
    log:
        "results/runs/prepare/{run}/log.txt",
    params:
        spec=lambda wc: study.run("prepare", wc.run).spec.canonical(),
    priority: lambda wc: study.run("prepare", wc.run).cost
    threads: lambda wc: study.run("prepare", wc.run).threads
    shell:
        "python -m llama_bench prepare {params.spec:q} {output} {input:q}"
