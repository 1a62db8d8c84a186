from standin import load, saved_step, train, training_parser

options = training_parser().parse_args()
load(options)
train(
    "mouth",
    options,
    options.iterations,
    saved_step(options.start_checkpoint) if options.start_checkpoint else 0,
)
