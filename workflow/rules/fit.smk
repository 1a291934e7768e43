# the ladder -> one law's parameters
rule fit:
    input:
        lambda wc: study.points(wc.study, wc.law),
    output:
        "results/studies/{study}/fits/{law}.json",
    params:
        code=study.code_digest,
    shell:
        "python -m llama_bench fit {wildcards.law} {output} {input}"
