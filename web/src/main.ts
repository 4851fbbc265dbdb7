import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import './prose.css';
import { locale } from './lib/locale/locale.svelte';

void locale.start().then(() => mount(App, { target: document.getElementById('app')! }));
