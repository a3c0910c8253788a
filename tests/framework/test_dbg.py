def test_a(plugin, cli, workplace):
    o = cli("+experiment=toy/example", "sweep=optuna", "hydra.sweeper.n_trials=2","trainer.max_epochs=1","model.optimizer.lr=tag(log,interval(1e-4,1e-1))","model.fail_at_step=choice(null,0)")
    open("/tmp/dbg.out","w").write(f"OUT {o.status} {o.out[-1500:]} {o.err[-3000:]}")
