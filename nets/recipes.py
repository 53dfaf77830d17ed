"""What the RECIPE tables of several families have in common."""

# MMSegmentation's schedule for most convolutional networks: ADE20K, total batch 16.
SGD_POLY = {
    "optimizer": "sgd",
    "lr": 0.01,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "scheduler": "poly",
    "poly_power": 0.9,
    "min_lr": 1e-4,
    "batch_size": 16,
    "loss": "ce",
}
# The semantic encoding loss with the weight of its paper (https://arxiv.org/abs/1803.08904, section 4).
WITH_PRESENCE = {"extra_losses": {"class_presence": "class_presence:0.2"}}
# The usual auxiliary head with its weight.
WITH_AUX = {"aux_weight": 0.4, "model_options": {"aux": True, "dropout": 0.1}}
