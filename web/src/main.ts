import { mount } from 'svelte';
import App from './App.svelte';
import './app.css';
import './prose.css';
import { getLocale, getTextDirection } from './paraglide/runtime.js';

document.documentElement.lang = getLocale();
document.documentElement.dir = getTextDirection();
mount(App, { target: document.getElementById('app')! });
