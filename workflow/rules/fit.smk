# the ladder -> one law's parameters
rule fit:
    input:
        "results/studies/{study}/tables/ladder.parquet",
    output:
        "results/studies/{study}/fits/{law}.json",
    params:
        code=study.code_digest,
    shell:
        "python -m llama_bench fit {wildcards.law} {output} {input}"
